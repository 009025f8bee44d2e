/* Records of jobs over the bus: who finds them, how long, and who goes first when there are too many.
 *
 * A record stands in a tree by id, in one by idempotency key if it has one, in a list by id (ids rise, so that is the
 * order of submission) and, once it has a verdict, in the list of its uid by age and in the list of those that are kept
 * as long as it is, which is by expiry without any sorting; there are as few lists as different ResultTTL=. It goes
 * when ResultTTL= is over, though not before its capsule, if it has one; or earlier under two budgets of number and
 * bytes: the uid that keeps too much loses its own oldest first, so that nobody pushes others out; then the next to
 * expire goes. Who asks for a record that had to go early is told so, as far back as the memory of that reaches; any
 * other unknown id is just unknown. */
#include "daemon/supervise/jobs/job.h"

#include <assert.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/supervise/sorted.h"
#include "daemon/supervise/streams/streams.h"
#include "daemon/supervise/supervisor-internal.h"
#include "ipc/memory/event.h"

enum {
        JOBS_MAX_FINISHED = 100000,
        JOBS_MAX_FINISHED_BYTES = 2 * JOBS_MAX_KEPT_BYTES_OF_UID, /* of all of the record */
        JOBS_MAX_FINISHED_OF_UID = JOBS_MAX_FINISHED / 2,
        JOBS_OVERHEAD_BYTES = 96,
        JOBS_DESCRIPTOR_BYTES = 16384, /* there are fewer of those than bytes: 2,048 of a uid */
        JOBS_MAX_EVICTED = 16384,
};
#define JOBS_LOOK_NS UINT64_C(60000000000) /* how often it is looked whether a job's capsule is still there */

static int job_compare(const void *a, const void *b) {
        uint64_t x = ((const struct job *)a)->id, y = ((const struct job *)b)->id;
        return (x > y) - (x < y);
}

static int job_user_compare(const void *a, const void *b) {
        uid_t x = ((const struct job_user *)a)->uid, y = ((const struct job_user *)b)->uid;
        return (x > y) - (x < y);
}

/* A key belongs to its uid and pool: nobody finds out what others use. */
static int job_key_compare(const void *a, const void *b) {
        const struct job *x = a, *y = b;
        if (x->uid != y->uid)
                return (x->uid > y->uid) - (x->uid < y->uid);
        int r = strcmp(x->key, y->key);
        return r ? r : strcmp(x->pool_name, y->pool_name);
}

int jobs_new(struct jobs **ret, struct supervisor *s) {
        struct jobs *js = calloc(1, sizeof(*js));
        if (!js)
                return -ENOMEM;
        js->supervisor = s;
        TAILQ_INIT(&js->all);
        TAILQ_INIT(&js->ttls);
        TAILQ_INIT(&js->at_once.finished);
        TAILQ_INSERT_HEAD(&js->ttls, &js->at_once, link);
        *ret = js;
        return 0;
}

struct job *jobs_find(const struct jobs *js, uint64_t id) {
        struct job key = {.id = id}, **found = tfind(&key, &js->by_id, job_compare);
        return found ? *found : NULL;
}

struct job *jobs_find_key(const struct jobs *js, uid_t uid, const char *pool, const char *key) {
        struct job wanted = {.uid = uid, .pool_name = pool, .key = key},
                   **found = tfind(&wanted, &js->by_key, job_key_compare);
        return found ? *found : NULL;
}

/* The first with a larger id. Usually `id` itself is still there; the ones that are gone were the oldest, so the walk
 * is short, too. */
struct job *jobs_after(const struct jobs *js, uint64_t id) {
        struct job *j = jobs_find(js, id);
        if (j)
                return TAILQ_NEXT(j, all_link);
        TAILQ_FOREACH(j, &js->all, all_link)
                if (j->id > id)
                        return j;
        return NULL;
}

/* ---- whose ---- */

static struct job_user *job_user_get(struct jobs *js, uid_t uid) {
        struct job_user key = {.uid = uid}, **found = tfind(&key, &js->users, job_user_compare);
        if (found)
                return *found;
        struct job_user *u = calloc(1, sizeof(*u));
        if (!u)
                return NULL;
        u->uid = uid;
        TAILQ_INIT(&u->jobs);
        TAILQ_INIT(&u->finished);
        if (tsearch(u, &js->users, job_user_compare))
                return u;
        free(u);
        return NULL;
}

static void job_user_put(struct jobs *js, struct job_user *u) {
        if (u->n_jobs > 0)
                return;
        tdelete(u, &js->users, job_user_compare);
        free(u);
}

struct job *jobs_after_of(const struct jobs *js, uint64_t id, uid_t uid) {
        struct job_user key = {.uid = uid}, **u = tfind(&key, &js->users, job_user_compare);
        struct job *j = jobs_find(js, id);
        if (j && j->uid == uid)
                return TAILQ_NEXT(j, uid_link);
        if (u)
                TAILQ_FOREACH(j, &(*u)->jobs, uid_link)
                        if (j->id > id)
                                return j;
        return NULL;
}

/* ---- from the first to the last ---- */

/* By id: usually the last; one from a capsule has an old one. */
static void job_insert(struct jobs *js, struct job_user *u, struct job *j) {
        SORTED_INSERT(&js->all, job_all_list, j, id, all_link);
        SORTED_INSERT(&u->jobs, job_uid_list, j, id, uid_link);
}

int job_keep(struct jobs *js, struct job *j) {
        struct job_user *u = job_user_get(js, j->uid);
        if (!u)
                return -ENOMEM;
        if (!tsearch(j, &js->by_id, job_compare)) {
                job_user_put(js, u);
                return -ENOMEM;
        }
        if (j->key && !tsearch(j, &js->by_key, job_key_compare)) {
                tdelete(j, &js->by_id, job_compare);
                job_user_put(js, u);
                return -ENOMEM;
        }
        j->user_of = u;
        u->n_jobs++;
        job_insert(js, u, j);
        return 0;
}

void job_drop(struct job *j) {
        struct jobs *js = j->jobs;
        TAILQ_REMOVE(&js->all, j, all_link);
        TAILQ_REMOVE(&j->user_of->jobs, j, uid_link);
        tdelete(j, &js->by_id, job_compare);
        if (j->key)
                tdelete(j, &js->by_key, job_key_compare);
        j->user_of->n_jobs--;
        job_user_put(js, j->user_of);
        job_needs_free(j);
        stream_forget_job(j);
        job_drop_result(j);
        free(j->payload);
        free(j->error);
        free(j);
}

static size_t job_fds_bytes(const struct job *j) {
        return j->result_fds ? (size_t)j->result_fds->n_fds * JOBS_DESCRIPTOR_BYTES : 0;
}

/* Roughly: with what the allocator and the tree take for it. */
static size_t job_bytes(const struct job *j) {
        return sizeof(*j) + j->result_fields->n_fields * sizeof(struct schema_field) + j->result_bytes +
               job_fds_bytes(j) + j->payload_bytes + (j->error ? strlen(j->error) : 0) + JOBS_OVERHEAD_BYTES;
}

static void job_count_finished(struct job *j, bool is_added) {
        struct jobs *js = j->jobs;
        struct job_user *u = j->user_of;
        size_t bytes = job_bytes(j);
        js->n_finished += is_added ? 1 : -1;
        u->n_finished += is_added ? 1 : -1;
        js->finished_bytes += is_added ? bytes : -bytes;
        u->finished_bytes += is_added ? bytes : -bytes;
}

static struct jobs_ttl *jobs_ttl_get(struct jobs *js, uint64_t ttl_ns) {
        struct jobs_ttl *t;
        TAILQ_FOREACH(t, &js->ttls, link)
                if (t->ttl_ns == ttl_ns)
                        return t;
        t = calloc(1, sizeof(*t));
        if (!t)
                return &js->at_once; /* without memory it is not kept */
        t->ttl_ns = ttl_ns;
        TAILQ_INIT(&t->finished);
        TAILQ_INSERT_TAIL(&js->ttls, t, link);
        return t;
}

/* Unless somebody is still kept in it. */
static void jobs_ttl_put(struct jobs *js, struct jobs_ttl *t) {
        if (!TAILQ_EMPTY(&t->finished) || t == &js->at_once)
                return;
        TAILQ_REMOVE(&js->ttls, t, link);
        free(t);
}

static void job_leave_ttl(struct job *j) {
        struct jobs_ttl *t = j->kept_in;
        TAILQ_REMOVE(&t->finished, j, link);
        j->kept_in = NULL;
        jobs_ttl_put(j->jobs, t);
}

/* The next to expire. */
static struct job *jobs_first(const struct jobs *js) {
        struct job *first = NULL, *j;
        struct jobs_ttl *t;
        TAILQ_FOREACH(t, &js->ttls, link)
                if ((j = TAILQ_FIRST(&t->finished)) && (!first || j->expires_ns < first->expires_ns))
                        first = j;
        return first;
}

void job_keep_finished(struct job *j) {
        struct jobs *js = j->jobs;
        j->kept_in = jobs_ttl_get(js, j->ttl_ns);
        if (j->kept_in == &js->at_once)
                j->expires_ns = j->finished_ns;
        TAILQ_INSERT_TAIL(&j->kept_in->finished, j, link);
        TAILQ_INSERT_TAIL(&j->user_of->finished, j, user_link);
        js->newest_user = j->user_of;
        job_count_finished(j, true);
}

void job_keep_again(struct job *j) {
        assert(j->is_finished);
        job_leave_ttl(j);
        TAILQ_REMOVE(&j->user_of->finished, j, user_link);
        job_count_finished(j, false);
}

static void job_forget(struct job *j) {
        assert(!j->waiters);
        SUPERVISOR_TELL(j->jobs->supervisor, on_job_forgotten, j);
        job_keep_again(j);
        job_drop(j);
}

/* ---- too many ---- */

static void job_evict(struct job *j) {
        struct jobs *js = j->jobs;
        if (!js->evicted)
                js->evicted = calloc(JOBS_MAX_EVICTED, sizeof(*js->evicted));
        if (js->evicted && !j->is_released)
                js->evicted[js->n_evicted++ % JOBS_MAX_EVICTED] = (struct job_evicted){
                        .id = j->id,
                        .until_ns = j->expires_ns,
                        .bytes = j->result_bytes > JOBS_MAX_KEPT_BYTES_OF_UID ? j->result_bytes : 0,
                        .uid = j->uid,
                        .is_raw = j->result_fields->is_raw,
                };
        job_forget(j);
}

const struct job_evicted *supervisor_find_evicted(struct supervisor *s, uint64_t id) {
        const struct jobs *js = s->jobs;
        uint64_t n = js->n_evicted < JOBS_MAX_EVICTED ? js->n_evicted : JOBS_MAX_EVICTED;
        for (uint64_t i = 0; i < n; i++)
                if (js->evicted[i].id == id && js->evicted[i].until_ns > event_now_ns())
                        return &js->evicted[i];
        return NULL;
}

static bool job_user_keeps_too_much(const struct job_user *u) {
        return u->n_finished > JOBS_MAX_FINISHED_OF_UID || u->finished_bytes > JOBS_MAX_KEPT_BYTES_OF_UID;
}

static void jobs_on_expiry(struct loop_timer *t) { jobs_expire(t->user); }

/* Only the uid of the newest can have come to keep too much. One that is too much by itself goes first: the others
 * would make room in vain. */
static void jobs_make_room(struct jobs *js, struct job_user *u) {
        struct job *j = u ? TAILQ_LAST(&u->finished, job_user_list) : NULL;
        if (j && job_bytes(j) > JOBS_MAX_KEPT_BYTES_OF_UID) {
                u = u->n_jobs == 1 ? NULL : u;
                job_evict(j);
        }
        while (u && job_user_keeps_too_much(u)) {
                bool is_last = u->n_jobs == 1;
                job_evict(TAILQ_FIRST(&u->finished));
                if (is_last)
                        break;
        }
        while ((js->n_finished > JOBS_MAX_FINISHED || js->finished_bytes > JOBS_MAX_FINISHED_BYTES) &&
               (j = jobs_first(js)))
                job_evict(j);
}

/* What has a capsule stays as long as that does, which is looked at now and then. Behind the others of its list: none
 * of them is kept for longer than from now on. False: it has none. */
static bool job_keep_on(struct job *j, uint64_t now) {
        if (j->is_released || !capsules_has(j->jobs->supervisor->capsules, j->pool_name, j->id))
                return false;
        uint64_t ttl_ns = j->ttl_ns > JOBS_LOOK_NS ? j->ttl_ns : JOBS_LOOK_NS;
        struct jobs_ttl *t = jobs_ttl_get(j->jobs, ttl_ns);
        if (t == &j->jobs->at_once)
                return false;
        struct jobs_ttl *before = j->kept_in;
        TAILQ_REMOVE(&before->finished, j, link);
        TAILQ_INSERT_TAIL(&t->finished, j, link);
        j->kept_in = t;
        jobs_ttl_put(j->jobs, before);
        j->ttl_ns = ttl_ns;
        j->expires_ns = now + ttl_ns;
        return true;
}

void jobs_expire(struct jobs *js) {
        uint64_t now = event_now_ns();
        struct job_user *u = js->newest_user;
        struct job *j;
        js->newest_user = NULL;
        jobs_make_room(js, u);
        while ((j = jobs_first(js)) && j->expires_ns <= now)
                if (!job_keep_on(j, now))
                        job_forget(j);
        if (j && (!js->expiry_timer.heap_index || js->expiry_timer.deadline_ns > j->expires_ns))
                loop_timer_set(js->supervisor->loop, &js->expiry_timer, j->expires_ns, jobs_on_expiry, js);
}

void job_release(struct job *j) {
        if (j->is_released)
                return;
        j->is_released = true;
        if (!j->is_finished || j->waiters)
                return;
        struct jobs *js = j->jobs;
        job_leave_ttl(j);
        j->ttl_ns = j->expires_ns = 0;
        j->kept_in = &js->at_once;
        TAILQ_INSERT_HEAD(&js->at_once.finished, j, link);
        if (js->n_telling == 0) /* not now: the caller still holds it */
                loop_timer_set(js->supervisor->loop, &js->expiry_timer, event_now_ns(), jobs_on_expiry, js);
}

struct jobs *jobs_free(struct jobs *js) {
        if (!js)
                return NULL;
        struct job *j;
        while ((j = jobs_first(js)))
                job_forget(j);
        loop_timer_stop(&js->expiry_timer);
        free(js->evicted);
        free(js);
        return NULL;
}

uid_t jobs_owner(const struct jobs *js, uint64_t id) {
        const struct job *j = jobs_find(js, id);
        return j ? j->uid : geteuid();
}
