/* cat: the settings that are in force for a pool, and where each stands. */
#include <string.h>

#include "daemon/ctl/verbs/look/view.h"

static const char *const setting_keys[] = {"section", "setting", "from"};
static const struct table_column setting_columns[] = {{"SECTION"}, {"SETTING"}, {"FROM"}};
static const struct view setting_view = {setting_keys, setting_columns, 3};

/* Objects of the rows (section, key, value, from). */
static struct json_object *name_rows(struct json_object *rows) {
        static const char *const keys[] = {"section", "key", "value", "from"};
        struct json_object *named = json_object_new_array();

        for (size_t i = 0; i < json_length(rows); i++) {
                struct json_object *setting = json_object_new_object();

                for (unsigned k = 0; k < 4; k++)
                        json_object_object_add(setting, keys[k], json_object_get(json_at(json_at(rows, i), k)));
                json_object_array_add(named, setting);
        }
        return named;
}

/* "KEY=VALUE", as a file has it. */
static int spell(struct json_object *setting) {
        char *text;

        if (asprintf(&text, "%s=%s", json_text(setting, "key", "?"), json_text(setting, "value", "")) < 0)
                return ctl_no_memory();
        json_object_object_add(setting, "setting", json_object_new_string(text));
        free(text);
        return CTL_OK;
}

static int print(struct ctl *c, struct json_object *files, struct json_object *settings) {
        int code = CTL_OK;

        for (size_t i = 0; i < json_length(files); i++)
                printf("# %s\n", json_plain(json_at(files, i)));
        for (size_t i = 0; i < json_length(settings) && code == CTL_OK; i++)
                code = spell(json_at(settings, i));
        return code == CTL_OK ? view_print(c, &setting_view, settings) : code;
}

int verb_cat(struct ctl *c) {
        const struct remote_call find = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "GetPool"};
        ctl_cleanup(json_putp) struct json_object *path = NULL, *files = NULL, *rows = NULL, *settings = NULL,
                                                  *o = NULL;
        int r = remote_call(c->remote, &find, &path, "s", c->operands[0]);

        if (r >= 0)
                r = remote_get(c->remote, json_string(path), "Pool", "Files", &files);
        if (r >= 0)
                r = remote_get(c->remote, json_string(path), "Pool", "Settings", &rows);
        if (r < 0)
                return remote_report(c->remote, r);
        settings = name_rows(rows);
        if (c->json == CTL_JSON_OFF)
                return print(c, files, settings);
        o = json_object_new_object();
        json_object_object_add(o, "pool", json_object_new_string(c->operands[0]));
        json_object_object_add(o, "files", json_object_get(files));
        json_object_object_add(o, "settings", json_object_get(settings));
        json_print(stdout, o, c->json);
        return CTL_OK;
}
