/* Who is behind a unique name.
 *
 * Messages from dbus-daemon carry no credentials, so the first call of a name costs one question to the bus, asked
 * without waiting; the calls that come meanwhile wait in order (turn.c). The answer is good for the life of the name:
 * unique names are never given out twice. peer-watch.c hears of its end. The cache is bounded: the name not heard of
 * for longest goes, if nothing of it waits, it is not subscribed and has no session.
 *
 * When a name leaves the bus, its calls are cancelled (nobody would read the answer) and its sessions end. */
#include "daemon/bus/peers/peer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/call.h"

enum { PEER_MAX_QUEUED = 1024 }; /* messages that the bus does not take: it is not asked more questions */

static struct bus_peer **bucket_of(struct bus *b, const char *name) {
        uint32_t hash = 2166136261u;

        for (; *name; name++)
                hash = (hash ^ (uint8_t)*name) * 16777619u;
        return &b->buckets[hash % BUS_PEER_BUCKETS];
}

struct bus_peer *peer_find(struct bus *b, const char *name) {
        struct bus_peer *p;

        for (p = *bucket_of(b, name); p; p = p->next)
                if (strcmp(p->name, name) == 0)
                        return p;
        return NULL;
}

struct bus_peer *peer_free(struct bus_peer *p) {
        struct bus_peer **link = bucket_of(p->bus, p->name);

        while (*link != p)
                link = &(*link)->next;
        *link = p->next;
        TAILQ_REMOVE(&p->bus->peers, p, link);
        p->bus->n_peers--;
        peer_subscribe(p, false);
        call_cancel_all(p);
        supervisor_end_sessions(&p->sessions); /* before its process is forgotten */
        farewell_forget(p);
        peer_forget_process(p);
        turn_end(p, NULL);
        unread_forget(p);
        user_give(p);
        sd_bus_slot_unref(p->query);
        watch_end(p);
        free(p);
        return NULL;
}

void peer_free_all(struct bus *b) {
        while (!TAILQ_EMPTY(&b->peers))
                peer_free(TAILQ_FIRST(&b->peers));
}

void peer_refuse(struct bus_peer *p, const char *error, const char *format, ...) {
        char text[300];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        turn_end(p, &SD_BUS_ERROR_MAKE_CONST(error, text));
        peer_free(p);
}

static int on_credentials(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus_peer *p = user;
        struct peer_credentials c;
        int r;

        p->query = sd_bus_slot_unref(p->query);
        if (sd_bus_message_is_method_error(m, NULL) || peer_read_credentials(m, &c) < 0 || !c.has_uid) {
                peer_refuse(p, SD_BUS_ERROR_ACCESS_DENIED, "the bus does not say who %s is", p->name);
                return 0;
        }
        p->pid = c.pid <= INT32_MAX ? (pid_t)c.pid : 0;
        r = user_take(p, c.uid);
        if (r < 0)
                peer_refuse(p, SD_BUS_ERROR_LIMITS_EXCEEDED, "uid %u has %s", (unsigned)c.uid,
                            r == -EDQUOT ? "as many programs with calls, channels or subscriptions as it may"
                                         : "called when droverd had no memory");
        else
                turn_known(p);
        return 0;
}

/* The rule first: if the name is gone by then, the question behind it fails and tells us so. */
int peer_ask(struct bus_peer *p) {
        int r;

        p->query = sd_bus_slot_unref(p->query);
        r = watch_begin(p);
        return r < 0 ? r
                     : sd_bus_call_method_async(p->bus->bus, &p->query, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                                "org.freedesktop.DBus", "GetConnectionCredentials", on_credentials, p,
                                                "s", p->name);
}

static bool is_idle(const struct bus_peer *p) {
        return p->user && !p->is_subscribed && p->n_calls == 0 && p->sessions.n_sessions == 0 &&
               STAILQ_EMPTY(&p->waiting) && STAILQ_EMPTY(&p->replies) && STAILQ_EMPTY(&p->process.waiting);
}

bool peer_evict_one(struct bus *b, const struct bus_user *u) {
        struct bus_peer *p;

        TAILQ_FOREACH(p, &b->peers, link) {
                if (is_idle(p) && (!u || p->user == u)) {
                        peer_free(p);
                        return true;
                }
        }
        return false;
}

int peer_get(struct bus *b, const char *name, struct bus_peer **ret) {
        struct bus_peer *p = peer_find(b, name);
        struct bus_peer **bucket = bucket_of(b, name);
        size_t bytes = strlen(name) + 1;
        uint64_t n_queued = 0;
        int r;

        if (p) {
                if (TAILQ_LAST(&b->peers, bus_peer_list) != p) {
                        TAILQ_REMOVE(&b->peers, p, link);
                        TAILQ_INSERT_TAIL(&b->peers, p, link);
                }
                *ret = p;
                return 0;
        }
        sd_bus_get_n_queued_write(b->bus, &n_queued);
        if (n_queued > PEER_MAX_QUEUED || (b->n_peers >= BUS_MAX_PEERS && !peer_evict_one(b, NULL)))
                return -EBUSY;
        p = calloc(1, sizeof(*p) + bytes);
        if (!p)
                return -ENOMEM;
        p->bus = b;
        STAILQ_INIT(&p->waiting);
        STAILQ_INIT(&p->replies);
        peer_init_process(p);
        memcpy(p->name, name, bytes);
        TAILQ_INIT(&p->calls);
        p->next = *bucket;
        *bucket = p;
        TAILQ_INSERT_TAIL(&b->peers, p, link);
        b->n_peers++;
        r = peer_ask(p);
        if (r < 0) {
                peer_free(p);
                return r;
        }
        *ret = p;
        return 0;
}

bool peer_subscribe(struct bus_peer *p, bool is_subscribed) {
        struct bus_user *u = p->user;

        if (p->is_subscribed == is_subscribed)
                return true;
        if (is_subscribed && !quota_is_free(p->uid) && u->n_subscribers >= BUS_MAX_SUBSCRIBERS_OF_USER)
                return false;
        p->is_subscribed = is_subscribed;
        p->told_ns = 0;
        p->bus->n_subscribers += is_subscribed ? 1u : -1u;
        u->n_subscribers += is_subscribed ? 1u : -1u;
        return true;
}

bool peer_may_see(const struct bus_peer *p, uid_t owner) { return p->uid == owner || authorize_is_root(p->uid); }
