/* A real drover-spawn behind a socketpair, with fake-worker as its worker and a plugin directory of its own. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "ipc/wire.h"

struct spawn_fixture {
        char dir[64];
        pid_t pid; /* of drover-spawn */
        int fd;    /* the broker's end; -1 once closed */
        uint32_t next_worker;
};

struct started {
        uint32_t worker;
        pid_t pid;
        int pidfd, fd;
};

int fixture_setup(void **state);    /* with HELLO received and plugin "plug.so" in place */
int fixture_teardown(void **state); /* asserts: gone within a second, and no process of it is left */
/* Starts one more drover-spawn with these arguments and descriptor 3. */
pid_t fixture_exec(char **argv, int fd3, bool is_listener);
/* Waits for the spawner's end, at most a second; its wait status. */
int fixture_wait(struct spawn_fixture *f);
void fixture_write_plugin(struct spawn_fixture *f, const char *name, const char *content);

void send_request(struct spawn_fixture *f, struct spawn_request *q);
void load(struct spawn_fixture *f, uint32_t generation,
          const char *behaviour); /* "" or FAKE_TEMPLATE=… ; expects success */
uint32_t start(struct spawn_fixture *f, uint32_t generation, enum start_method method);
void send_kill(struct spawn_fixture *f, uint32_t worker, int signal);
/* The next event; it must be of that type. Descriptors of STARTED go to `s`. */
struct spawn_event expect(struct spawn_fixture *f, enum spawn_event_type type);
struct started expect_started(struct spawn_fixture *f, uint32_t worker);
struct spawn_event expect_exited(struct spawn_fixture *f, struct started *s);

void command(const struct started *s, const char *text);
void answer(const struct started *s, char *text, size_t room);
pid_t answer_pid(const struct started *s);
bool is_alive(pid_t pid);
/* Asserts that it is gone within a second. */
void expect_gone(pid_t pid);
