/* A pool's settings on the bus: its properties Files and Settings.
 *
 * Each is as it is in force, as a file would have it, with where it stands. Everybody may read them, but for the values
 * of Environment=, which often are secrets: those are root's. */
#include <string.h>

#include "daemon/bus/objects/settings.h"
#include "daemon/config/config-keys.h"
#include "daemon/config/config-show.h"

int settings_append(sd_bus_message *reply, const struct pool_config *c, bool sees_all) {
        struct config_shown s;
        int r;

        r = sd_bus_message_open_container(reply, 'a', "(ssss)");
        for (size_t i = 0; i < config_n_keys && r >= 0; i++) {
                if (!config_show(c, i, &s))
                        continue;
                if (!sees_all && s.value[0] && strcmp(s.name, "Environment") == 0)
                        strcpy(s.value, "(hidden)");
                bus_clean_text(s.value);
                bus_clean_text(s.from);
                r = sd_bus_message_append(reply, "(ssss)", s.section, s.name, s.value, s.from);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

int settings_append_files(sd_bus_message *reply, const struct pool_config *c) {
        char text[CONFIG_MAX_PATHS];
        int r;

        r = sd_bus_message_open_container(reply, 'a', "s");
        for (const char *path = c->origins.paths; *path && r >= 0; path += strlen(path) + 1) {
                snprintf(text, sizeof(text), "%s", path);
                bus_clean_text(text);
                r = sd_bus_message_append(reply, "s", text);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}
