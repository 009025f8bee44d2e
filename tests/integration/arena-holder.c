/* arena-holder ARENA MUTEX: a program of the user that opens an arena over the bus, locks a mutex in it, says "held"
 * and waits to be killed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "ipc/sync/include/drover/sync.h"

static int read_memory(sd_bus_message *m, int *ret_fd) {
        const char *key;
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read_basic(m, 's', &key);
                if (r >= 0 && strcmp(key, "memory") == 0)
                        return sd_bus_message_read(m, "v", "h", ret_fd);
                if (r >= 0)
                        r = sd_bus_message_skip(m, "v");
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : -ENOENT;
}

int main(int argc, char *argv[]) {
        sd_bus *bus = NULL;
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *reply = NULL;
        drover_arena *arena;
        drover_mutex *mutex;
        int fd = -1, r;
        if (argc != 3)
                return 2;
        r = sd_bus_open_user(&bus);
        if (r >= 0)
                r = sd_bus_call_method(bus, "org.drover1", "/org/drover1", "org.drover1.Manager", "OpenArena", &error,
                                       &reply, "sa{sv}", argv[1], 0);
        if (r >= 0)
                r = read_memory(reply, &fd);
        if (r >= 0)
                r = drover_arena_attach(fd, &arena);
        if (r >= 0)
                r = drover_mutex_open(arena, argv[2], 0, &mutex);
        if (r >= 0)
                r = drover_mutex_lock(mutex, DROVER_FOREVER);
        if (r < 0) {
                fprintf(stderr, "arena-holder: %s\n", error.message ? error.message : strerror(-r));
                return 1;
        }
        puts("held");
        fflush(stdout);
        pause();
        return 0;
}
