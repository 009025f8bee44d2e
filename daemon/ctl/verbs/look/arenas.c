/* list-arenas, remove-arena. What is in one is list-objects' business (list.c). */
#include <string.h>

#include "daemon/ctl/show/text.h"
#include "daemon/ctl/verbs/look/view.h"

static const char *const arena_keys[] = {"name", "uid", "size", "used", "places", "processes", "ends"};
static const struct table_column arena_columns[] = {
        {"ARENA"}, {"UID", true}, {"SIZE", true}, {"OBJECTS", true}, {"ATTACHED", true}, {"PROCESSES", true}, {"ENDS"}};
static const struct view arena_view = {arena_keys, arena_columns, 7};

/* "3/256": how much of a limit is used. */
static void add_share(struct json_object *arena, const char *key, const char *used, const char *limit) {
        char text[TEXT_MAX];

        snprintf(text, sizeof text, "%llu/%llu", (unsigned long long)json_number(arena, used),
                 (unsigned long long)json_number(arena, limit));
        json_object_object_add(arena, key, json_object_new_string(text));
}

static void add_words(struct json_object *arena) {
        char text[TEXT_MAX];
        struct json_object *transient = json_object_object_get(arena, "transient");

        json_object_object_add(arena, "size", json_object_new_string(text_bytes(json_number(arena, "bytes"), text)));
        add_share(arena, "used", "objects", "max-objects");
        add_share(arena, "places", "attached", "max-attached");
        json_object_object_add(
                arena, "ends",
                json_object_new_string(json_object_get_boolean(transient) ? "with its last process" : "when removed"));
}

int verb_list_arenas(struct ctl *c) {
        const struct remote_call list = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "ListArenas"};
        ctl_cleanup(json_putp) struct json_object *arenas = NULL;
        int r = remote_call(c->remote, &list, &arenas, NULL);

        if (r < 0)
                return remote_report(c->remote, r);
        if (c->json != CTL_JSON_OFF) {
                json_print(stdout, arenas, c->json);
                return CTL_OK;
        }
        for (size_t i = 0; i < json_length(arenas); i++)
                add_words(json_at(arenas, i));
        return view_print(c, &arena_view, arenas);
}

/* All that can be removed are, also behind one that cannot. */
int verb_remove_arena(struct ctl *c) {
        const struct remote_call call = {.path = REMOTE_MANAGER, .interface = "Manager", .member = "RemoveArena"};
        ctl_cleanup(json_putp) struct json_object *rows = json_object_new_array();
        int code = CTL_OK;

        for (int i = 0; i < c->n_operands; i++) {
                struct json_object *row;
                int r = remote_call(c->remote, &call, NULL, "s", c->operands[i]);

                if (r < 0) {
                        code = remote_report(c->remote, r);
                        continue;
                }
                row = json_object_new_object();
                json_object_object_add(row, "arena", json_object_new_string(c->operands[i]));
                json_object_array_add(rows, row);
        }
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, rows, c->json);
        return code;
}
