/* Arenas on the bus: OpenArena, RemoveArena, ListArenas, ListObjects, ListObjectsFrom.
 *
 * An arena belongs to the caller's uid; a foreign one is as unknown as a missing one. Root may name another's as
 * "UID/NAME", and finds the daemon's own, which its workers use, by the plain name if it has none of that name itself.
 *
 * Whoever gets an arena is watched by a pidfd from then on, so OpenArena needs the process behind the caller's unique
 * name (peer-process.c): asked for once, and until then the call is held back. */
#include "daemon/bus/objects/arena.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/call.h"
#include "daemon/bus/value.h"
#include "daemon/supervise/arenas/arenas.h"
#include "ipc/sync/layout.h"

static int read_count(sd_bus_message *m, const char *name, uint32_t limit, uint32_t *ret, sd_bus_error *e) {
        uint64_t n;
        int r = value_read_number(m, name, 1, limit, &n, e);

        if (r >= 0)
                *ret = (uint32_t)n;
        return r;
}

static int read_transient(sd_bus_message *m, struct arena_request *q, sd_bus_error *e) {
        int is_transient, r = value_enter_variant(m, "option transient", "b", e);

        if (r >= 0)
                r = sd_bus_message_read_basic(m, 'b', &is_transient);
        if (r < 0)
                return r;
        q->is_transient = is_transient;
        return sd_bus_message_exit_container(m);
}

static int read_open_options(sd_bus_message *m, struct arena_request *q, sd_bus_error *e) {
        const char *name;
        int r;

        r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read_basic(m, 's', &name);
                if (r >= 0 && strcmp(name, "bytes") == 0)
                        r = value_read_number(m, name, 1, UINT64_MAX, &q->bytes, e);
                else if (r >= 0 && strcmp(name, "objects") == 0)
                        r = read_count(m, name, ARENA_MAX_OBJECTS, &q->n_objects, e);
                else if (r >= 0 && strcmp(name, "processes") == 0)
                        r = read_count(m, name, ARENA_MAX_PARTICIPANTS, &q->n_processes, e);
                else if (r >= 0 && strcmp(name, "transient") == 0)
                        r = read_transient(m, q, e);
                else if (r >= 0)
                        return bus_invalid(
                                e, "unknown option \"%.64s\"; there are bytes, objects, processes, transient", name);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

int arena_method_open(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct arena_request q = {.uid = p->uid};
        struct arena_offer offer;
        struct fault f = {};
        int r;

        if (p->process.pidfd < 0) {
                r = call_check_room(p, e);
                if (r >= 0)
                        r = call_check_numbers(b, e); /* for the process's own */
                return r < 0 ? r : peer_ask_process(p, m, arena_method_open);
        }
        r = sd_bus_message_read_basic(m, 's', &q.name);
        if (r >= 0)
                r = read_open_options(m, &q, e);
        if (r < 0)
                return r;
        q.pid = p->process.pid;
        q.pidfd = p->process.pidfd;
        if (arenas_open(supervisor_arenas(b->supervisor), &q, &offer, &f) < 0)
                return bus_error_from_fault(e, &f);
        r = bus_reply_begin(m, "{sv}", &reply);
        if (r >= 0)
                r = sd_bus_message_append(reply, "{sv}{sv}{sv}", "memory", "h", offer.memory_fd, "bytes", "t",
                                          offer.bytes, "created", "b", (int)offer.is_created);
        close(offer.memory_fd); /* the reply has one of its own */
        return bus_reply_end(b, reply, (struct bus_weight){.n_bytes = BUS_REPLY_BYTES, .n_fds = 1}, r);
}

/* ---- finding ---- */

/* "1000/bank": 1000 and "bank". */
static bool split_name(const char *word, uid_t *ret_uid, const char **ret_name) {
        const char *slash = strchr(word, '/');
        unsigned long long uid;
        char *end;

        if (!slash || word[0] < '0' || word[0] > '9')
                return false;
        errno = 0;
        uid = strtoull(word, &end, 10);
        if (end != slash || errno || uid > UINT32_MAX)
                return false;
        *ret_uid = (uid_t)uid;
        *ret_name = slash + 1;
        return true;
}

static int read_arena(struct bus *b, struct bus_peer *p, sd_bus_message *m, struct arena **ret, sd_bus_error *e) {
        struct arenas *arenas = supervisor_arenas(b->supervisor);
        const char *word, *name;
        struct arena *a;
        uid_t uid;
        int r;

        r = sd_bus_message_read_basic(m, 's', &word);
        if (r < 0)
                return r;
        a = arenas_find(arenas, p->uid, word);
        if (!a && authorize_is_root(p->uid))
                a = split_name(word, &uid, &name) ? arenas_find(arenas, uid, name)
                                                  : arenas_find(arenas, geteuid(), word);
        if (!a)
                return sd_bus_error_setf(e, "org.drover1.Error.NoSuchArena", "there is no arena \"%.80s\" of uid %u%s",
                                         word, (unsigned)p->uid,
                                         authorize_is_root(p->uid) ? ", nor of the daemon; another's is UID/NAME" : "");
        *ret = a;
        return 0;
}

int arena_method_remove(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct arena *a;
        int r;

        r = read_arena(b, p, m, &a, e);
        if (r < 0)
                return r;
        arenas_remove(a);
        return bus_reply(b, m, NULL);
}

/* ---- which there are, and what is in one ---- */

static int append_arena(sd_bus_message *reply, struct arena *a) {
        struct arena_info i;

        arena_get_info(a, &i);
        return sd_bus_message_append(reply, "a{sv}", 9, "name", "s", i.name, "uid", "u", (uint32_t)i.uid, "bytes", "t",
                                     i.bytes, "objects", "u", i.n_objects, "max-objects", "u", i.max_objects,
                                     "attached", "u", i.n_places, "max-attached", "u", i.max_places, "processes", "u",
                                     i.n_users, "transient", "b", (int)i.is_transient);
}

/* The caller's; root's are all. */
int arena_method_list(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        struct arenas *arenas = supervisor_arenas(b->supervisor);
        struct arena *a = NULL;
        size_t n = 0;
        int r;

        r = bus_reply_begin(m, "a{sv}", &reply);
        while (r >= 0 && (a = arenas_next(arenas, a))) {
                if (arena_uid(a) != p->uid && !authorize_is_root(p->uid))
                        continue;
                r = append_arena(reply, a);
                n++;
        }
        return r < 0 ? r : bus_reply_end(b, reply, bus_rows_weight(n), r);
}

static int append_object(const struct bus_peer *p, sd_bus_message *reply, const struct drover_object_info *o) {
        struct worker *w = o->owner_pid > 0 ? supervisor_find_worker_by_pid(p->bus->supervisor, o->owner_pid) : NULL;
        struct worker_info owner = {};
        char name[sizeof(o->name)], type[sizeof(o->type)];

        if (w)
                worker_get_info(w, &owner);
        memcpy(name, o->name, sizeof(name)); /* anybody who shares the arena wrote it */
        memcpy(type, o->type, sizeof(type));
        name[sizeof(name) - 1] = type[sizeof(type) - 1] = '\0';
        bus_clean_text(name);
        bus_clean_text(type);
        return sd_bus_message_append(reply, "a{sv}", 8, "name", "s", name, "type", "s", type, "owner-pid", "u",
                                     (uint32_t)o->owner_pid, "owner-worker", "t", owner.id, "owner-job", "t",
                                     peer_may_see(p, owner.job_uid) ? owner.current_job : 0, "waiters", "u",
                                     o->n_waiters, "deaths-repaired", "u", o->n_repaired, "inconsistent", "b",
                                     (int)o->is_inconsistent);
}

static int append_objects(const struct bus_peer *p, sd_bus_message *reply, const struct drover_object_info *objects,
                          int n) {
        int r = sd_bus_message_open_container(reply, 'a', "a{sv}");

        for (int i = 0; i < n && r >= 0; i++)
                r = append_object(p, reply, &objects[i]);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int answer_objects(struct bus_peer *p, sd_bus_message *m, struct arena *a, uint32_t position, uint32_t limit,
                          bool is_page) {
        __attribute__((cleanup(sd_bus_message_unrefp))) sd_bus_message *reply = NULL;
        const struct drover_object_info *objects;
        char next[16] = "";
        int n, r;

        n = arena_list_objects(a, &position, limit, &objects);
        r = n < 0 ? n : sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = append_objects(p, reply, objects, n);
        if (position > 0)
                snprintf(next, sizeof(next), "%u", position);
        if (r >= 0 && is_page)
                r = sd_bus_message_append(reply, "s", next);
        return r < 0 ? r : bus_send(p->bus, reply, bus_rows_weight((size_t)n));
}

int arena_method_list_objects(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        struct arena *a;
        int r = read_arena(b, p, m, &a, e);

        return r < 0 ? r : answer_objects(p, m, a, 0, 0, false);
}

/* The cursor is the directory's entry that the next page begins with: what is made or removed meanwhile moves no other.
 */
int arena_method_list_objects_from(struct bus *b, struct bus_peer *p, sd_bus_message *m, sd_bus_error *e) {
        const char *cursor;
        struct arena *a;
        uint64_t position;
        uint32_t limit;
        int r;

        r = read_arena(b, p, m, &a, e);
        if (r >= 0)
                r = sd_bus_message_read(m, "su", &cursor, &limit);
        if (r >= 0)
                r = value_read_cursor(cursor, ARENA_MAX_OBJECTS, &position, e);
        return r < 0 ? r : answer_objects(p, m, a, (uint32_t)position, limit, true);
}
