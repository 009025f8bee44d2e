/* Who is behind a unique name.
 *
 * Messages from dbus-daemon carry no credentials, so the first call of a name costs one question to the bus, asked
 * without waiting; the calls that come meanwhile are held back in order. The answer is good for the life of the name:
 * unique names are never given out twice. peer-watch.c hears of its end. The cache is bounded: the name not heard of
 * for longest goes, if nothing of it waits, it is not subscribed and has no session.
 *
 * When a name leaves the bus, its calls are cancelled (nobody would read the answer) and its sessions end. */
#include "daemon/bus/peer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/bus/authorize.h"
#include "daemon/bus/call.h"

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
        struct bus_held *h;

        while (*link != p)
                link = &(*link)->next;
        *link = p->next;
        TAILQ_REMOVE(&p->bus->peers, p, link);
        p->bus->n_peers--;
        peer_subscribe(p, false);
        call_cancel_all(p);
        supervisor_end_sessions(&p->sessions); /* before its process is forgotten */
        while ((h = p->held)) {
                p->held = h->next;
                sd_bus_message_unref(h->message);
                free(h);
        }
        farewell_forget(p);
        peer_forget_process(p);
        sd_bus_slot_unref(p->query);
        watch_end(p);
        free(p);
        return NULL;
}

void peer_free_all(struct bus *b) {
        while (!TAILQ_EMPTY(&b->peers))
                peer_free(TAILQ_FIRST(&b->peers));
}

static struct bus_held *take_held(struct bus_peer *p) {
        struct bus_held *all = p->held;

        p->held = NULL;
        p->held_tail = &p->held;
        return all;
}

static void drop_held(struct bus_held *h) {
        sd_bus_message_unref(h->message);
        free(h);
}

void peer_run_held(struct bus_peer *p) {
        struct bus_held *next;

        for (struct bus_held *h = take_held(p); h; h = next) { /* a call may be held again, for something else */
                next = h->next;
                p->n_calls--; /* before: it may count as waiting for something else then */
                bus_run_held(p->bus, p, h->message, h->fn);
                drop_held(h);
        }
}

void peer_fail_held(struct bus_peer *p, const char *error, const char *format, ...) {
        struct bus_held *next;
        char text[200];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        for (struct bus_held *h = take_held(p); h; h = next) {
                next = h->next;
                p->n_calls--;
                sd_bus_reply_method_errorf(h->message, error, "%s", text);
                drop_held(h);
        }
}

static int on_uid(sd_bus_message *m, void *user, sd_bus_error *e) {
        struct bus_peer *p = user;
        uint32_t uid;

        p->query = sd_bus_slot_unref(p->query);
        if (sd_bus_message_is_method_error(m, NULL) || sd_bus_message_read(m, "u", &uid) < 0) {
                peer_fail_held(p, SD_BUS_ERROR_ACCESS_DENIED, "the bus does not say who %s is", p->name);
                peer_free(p);
                return 0;
        }
        p->uid = uid;
        p->is_known = true;
        peer_run_held(p);
        return 0;
}

/* The rule first: if the name is gone by then, the question behind it fails and tells us so. */
int peer_ask(struct bus_peer *p) {
        int r;

        p->query = sd_bus_slot_unref(p->query);
        r = watch_begin(p);
        return r < 0 ? r
                     : sd_bus_call_method_async(p->bus->bus, &p->query, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                                "org.freedesktop.DBus", "GetConnectionUnixUser", on_uid, p, "s",
                                                p->name);
}

bool peer_evict_one(struct bus *b) {
        struct bus_peer *p;

        TAILQ_FOREACH(p, &b->peers, link)
        if (p->is_known && !p->is_subscribed && p->n_calls == 0 && p->sessions.n_sessions == 0) {
                peer_free(p);
                return true;
        }
        return false;
}

int peer_get(struct bus *b, const char *name, struct bus_peer **ret) {
        struct bus_peer *p = peer_find(b, name);
        struct bus_peer **bucket = bucket_of(b, name);
        size_t bytes = strlen(name) + 1;
        int r;

        if (p) {
                if (TAILQ_LAST(&b->peers, bus_peer_list) != p) {
                        TAILQ_REMOVE(&b->peers, p, link);
                        TAILQ_INSERT_TAIL(&b->peers, p, link);
                }
                *ret = p;
                return 0;
        }
        if (b->n_peers >= BUS_MAX_PEERS && !peer_evict_one(b))
                return -EBUSY;
        p = calloc(1, sizeof(*p) + bytes);
        if (!p)
                return -ENOMEM;
        p->bus = b;
        p->held_tail = &p->held;
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

int peer_hold(struct bus_peer *p, sd_bus_message *m, bus_method_fn fn) {
        struct bus_held *h = calloc(1, sizeof(*h));

        if (!h)
                return -ENOMEM;
        h->message = sd_bus_message_ref(m);
        h->fn = fn;
        *p->held_tail = h;
        p->held_tail = &h->next;
        p->n_calls++;
        return 0;
}

void peer_subscribe(struct bus_peer *p, bool is_subscribed) {
        if (p->is_subscribed == is_subscribed)
                return;
        p->is_subscribed = is_subscribed;
        p->told_ns = 0;
        if (is_subscribed)
                p->bus->n_subscribers++;
        else
                p->bus->n_subscribers--;
}

bool peer_may_see(const struct bus_peer *p, uid_t owner) { return p->uid == owner || authorize_is_root(p->uid); }
