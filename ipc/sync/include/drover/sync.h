/* Drover's sharing objects: locks, signals, queues and memory for the threads of any number of processes, each of which
 * may be killed at any instruction while the others go on.
 *
 *     drover_arena *arena;
 *     drover_mutex *mutex;
 *     drover_arena_create("bank", 1 << 20, &arena);          // in one process
 *     drover_arena_attach(fd, &arena);                       // in the others, with drover_arena_fd() of the first
 *     drover_mutex_open(arena, "account", 0, &mutex);        // in each: made once, found by name
 *
 *     int r = drover_mutex_lock(mutex, DROVER_FOREVER);
 *     if (r == -EOWNERDEAD) {
 *             repair_the_account();
 *             drover_mutex_consistent(mutex);
 *     } else if (r < 0)
 *             return r;
 *     ...
 *     drover_mutex_unlock(mutex);
 *
 * Objects live in arenas and are found by name and type; the first who opens one makes it. A handle (drover_mutex *) is
 * private to a process and may be used by all of its threads at once. Use none after its arena was freed.
 *
 * Owners. What is locked or leased belongs to a thread of a process (a mutex, the writing side of a rwlock) or to the
 * process (permits, leased items, the reading side). When a process ends, in whatever way, somebody who knows it for
 * dead calls drover_arena_repair(): the broker does for arenas that it handed out, a parent process for its own. From
 * then on nothing is held by the dead one: mutexes tell their next owner -EOWNERDEAD, permits and items are back,
 * barriers are broken, and every waiter looks again. A thread that ends while its process lives gives nothing back.
 *
 * A fork: mappings are not inherited, and objects must not be used in the child, which attaches for itself. The _free
 * calls work there: they give back the child's memory and descriptors, and touch nothing that is shared.
 *
 * Deadlines are absolute CLOCK_MONOTONIC nanoseconds. 0 = try: never sleeps, -EAGAIN. DROVER_FOREVER = none. One that
 * has passed makes a waiting call look once, then return -ETIMEDOUT. Waiting calls are not interrupted by signals,
 * and are no cancellation points: a thread that pthread_cancel(3) is told of ends after them.
 *
 * Errors are negative errno values, 0 or a count is success; pointers named ret_ are set on success only. Every waiting
 * call may return -EDEADLK: it was the youngest in a cycle of owners, see drover_arena_find_cycle; every call for an
 * object -EIDRM: it was removed, see drover_arena_unlink. All calls may be made from any thread, none from a signal
 * handler. Since 0.1, all of it. */
#ifndef DROVER_SYNC_H
#define DROVER_SYNC_H

#if __SIZEOF_POINTER__ != 8
#error "Drover needs a 64-bit machine: words that processes share are 64 bits wide"
#endif

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#ifndef DROVER_FOREVER
#define DROVER_FOREVER UINT64_MAX
#endif

/* Now plus `ns`, saturating: DROVER_FOREVER and what is too far away stay DROVER_FOREVER. Never 0. */
uint64_t drover_deadline_in(uint64_t ns);

typedef struct drover_arena drover_arena;
typedef struct drover_mutex drover_mutex;
typedef struct drover_condition drover_condition;
typedef struct drover_semaphore drover_semaphore;
typedef struct drover_permits drover_permits;
typedef struct drover_event drover_event;
typedef struct drover_barrier drover_barrier;
typedef struct drover_rwlock drover_rwlock;
typedef struct drover_array drover_array;
typedef struct drover_dictionary drover_dictionary;
typedef struct drover_queue drover_queue;
typedef struct drover_pipe drover_pipe;

/* ---- arenas ---- */

/* Makes a memory file of `bytes` (rounded up to pages; what the arena needs for itself, about 100 KiB, comes on top)
 * and attaches to it. `name` shows in /proc/PID/maps. -EINVAL: bytes is 0 or beyond 4 GiB. -ENOMEM, -EMFILE, … */
int drover_arena_create(const char *name, uint64_t bytes, drover_arena **ret_arena);
/* The same with room for so many objects, 1 to 65,536, and processes, 1 to 4096 (-EINVAL), instead of 256 of each. An
 * object takes 132 bytes beside its own, and a bit a process. A process takes 64 bytes, 64 more in each rwlock and 4 in
 * each barrier; who writes under a rwlock looks through as many words as there may be processes. */
int drover_arena_create_sized(const char *name, uint64_t bytes, uint32_t max_objects, uint32_t max_processes,
                              drover_arena **ret_arena);

/* Attaches to an arena that another process made. `fd` stays the caller's and may be closed. -EPROTO: not an arena.
 * -EUSERS: as many processes are attached as it was made for (droverctl list-arenas shows how many are). */
int drover_arena_attach(int fd, drover_arena **ret_arena);

/* The memory file, for others to attach to; CLOEXEC; closed with the arena. */
int drover_arena_fd(const drover_arena *arena);

/* Gives back everything that this process holds, as a death would, detaches, unmaps. In a condition's predicate or a
 * barrier's action, too: the call that is in it then says -EBUSY. NULL is fine. Returns NULL. */
drover_arena *drover_arena_free(drover_arena *arena);

/* Takes an object's name away; -ENOENT: there is none. The next who opens the name makes a new object. Calls for the
 * old one, those that wait and those that come later, return -EIDRM in every process, but who holds it gives it back as
 * ever (unlocking works; items that were put are lost). Its memory and its place are used again when every handle of it
 * was given back, or its process has ended. Remove a mutex's conditions with it. Whoever else uses an object should
 * know: nobody asks them. -EINVAL, -ETIMEDOUT, -EPROTO: as _open. */
int drover_arena_unlink(drover_arena *arena, const char *name);

/* Which limit it was that the last -ENOSPC or -EUSERS of a call of this header in this thread is about, with its size:
 * objects, memory or processes of the arena, keys of a dictionary. Valid until the next. "" if there was none. */
const char *drover_arena_error(void);

/* This process's number in the arena. */
uint32_t drover_arena_participant(const drover_arena *arena);

/* For a process that has ended (waited for, or its pidfd readable): takes from it what it held and wakes whoever it may
 * have been about to wake. If the caller is killed in it, somebody calls it again; two must not be in it at once for
 * the same participant. A process that still runs must never be repaired: it would go on to believe that it owns
 * things. -EINVAL: no such participant. -EBUSY: two were in it. */
int drover_arena_repair(drover_arena *arena, uint32_t participant);

/* The same for every participant with this pid. Returns how many there were. The pid is what the participant itself
 * said: for processes that trust each other, as a parent and its children. */
int drover_arena_repair_pid(drover_arena *arena, int32_t pid);

struct drover_object_info {
        char name[56];
        char type[24];
        int32_t owner_pid;     /* of a lock that is held; 0 = none */
        uint32_t owner_thread; /* its thread or fiber, a number of Drover's */
        uint32_t n_waiters;
        uint32_t n_repaired;  /* deaths that took something from this object's holders */
        bool is_inconsistent; /* an owner died, nobody called _consistent yet */
};

/* What is in the arena: fills up to `n` entries, returns how many objects there are. Never blocks. */
int drover_arena_list(drover_arena *arena, struct drover_object_info *infos, size_t n);

struct drover_wait_info {
        int32_t pid; /* who waits … */
        uint32_t thread;
        uint64_t since_ns; /* … CLOCK_MONOTONIC, since when … */
        char object[56];   /* … for what … */
        char type[24];
        int32_t owner_pid; /* … held by whom; 0 = nobody in particular */
        uint32_t owner_thread;
};

/* Who waits for what: fills up to `n` entries, returns how many wait. Never blocks. */
int drover_arena_list_waits(drover_arena *arena, struct drover_wait_info *infos, size_t n);

/* Looks for threads that wait for each other's locks in a circle. Finds one: returns how many take part, fills up to
 * `n` entries in their order, and the youngest waiter's call returns -EDEADLK. Finds none: 0. Only true cycles are
 * found, however much goes on meanwhile. Costs some 10 µs per hundred waiters; for when something takes too long. */
int drover_arena_find_cycle(drover_arena *arena, struct drover_wait_info *infos, size_t n);

/* Every _open below: -EINVAL for a name that is empty or longer than 55 bytes, or parameters out of range; -EEXIST if
 * an object of that name has another type or other parameters; -ENOENT if parameters are 0 (meaning: as they are) and
 * there is no such object; -ENOSPC if the arena is full, of the objects or of the bytes that it was made with:
 * drover_arena_error says of which; -ETIMEDOUT if whoever is making an object has not finished for 5 s (stopped, or not
 * honest); -EPROTO if the arena's directory makes no sense; -ENOMEM. Every _free takes NULL and returns NULL; it
 * forgets the handle, not the object. */

/* ---- mutex ---- */

enum drover_mutex_flag { DROVER_RECURSIVE = 1 };

int drover_mutex_open(drover_arena *arena, const char *name, unsigned flags, drover_mutex **ret_mutex);
drover_mutex *drover_mutex_free(drover_mutex *mutex);

/* 0: the caller's. -EOWNERDEAD: the caller's, but an owner died while it held the mutex: what it guards may be half
 * changed, and every owner is told until one calls drover_mutex_consistent. Not the caller's: -EAGAIN, -ETIMEDOUT,
 * -EDEADLK (also at once: this thread holds it, and it is not recursive). [waits] */
int drover_mutex_lock(drover_mutex *mutex, uint64_t deadline_ns);

/* -EPERM: not locked by this thread. (Hand-offs between threads use a semaphore.) */
int drover_mutex_unlock(drover_mutex *mutex);

/* The data is whole again. -EPERM: not locked by this thread. -EINVAL: nobody died. */
int drover_mutex_consistent(drover_mutex *mutex);

/* ---- condition ---- */

/* A condition belongs to one mutex, the same in every process; the handle of the mutex must outlive it. */
int drover_condition_open(drover_arena *arena, const char *name, drover_mutex *mutex, drover_condition **ret_condition);
drover_condition *drover_condition_free(drover_condition *condition);

/* Gives the mutex up (all of it, if it is held several deep), sleeps, takes it again as deep as it was: also after
 * -ETIMEDOUT or -EDEADLK, but not if the mutex was removed meanwhile (-EIDRM; drover_mutex_unlock then says -EPERM).
 * -EPERM: the caller does not hold the mutex. -EOWNERDEAD: woken or not, an owner of the mutex died; as from
 * drover_mutex_lock. May return 0 without having been notified (after the death of a process, for instance): look at
 * what you wait for. [waits] */
int drover_condition_wait(drover_condition *condition, uint64_t deadline_ns);

/* Waits until is_true(user), which is called with the mutex held. -EBUSY: it freed the arena; nothing of it is there
 * any more. [waits] */
int drover_condition_wait_for(drover_condition *condition, bool (*is_true)(void *user), void *user,
                              uint64_t deadline_ns);

/* Wakes n waiters (at least, if so many wait), or all. -EPERM: the caller does not hold the mutex. */
int drover_condition_notify(drover_condition *condition, uint32_t n);
int drover_condition_notify_all(drover_condition *condition);

/* ---- semaphore: anyone may post, what a dead process posted stays ---- */

/* `value`: of one that is made. 0 takes it as it is, and makes it with 0 if there is none. */
int drover_semaphore_open(drover_arena *arena, const char *name, uint32_t value, drover_semaphore **ret_semaphore);
drover_semaphore *drover_semaphore_free(drover_semaphore *semaphore);
int drover_semaphore_wait(drover_semaphore *semaphore, uint64_t deadline_ns); /* [waits] */
int drover_semaphore_post(drover_semaphore *semaphore, uint32_t n);           /* -EOVERFLOW: beyond INT32_MAX */
uint32_t drover_semaphore_value(const drover_semaphore *semaphore);           /* true when it was read */

/* ---- permits: n of them, each leased to a process, given back when it dies ---- */

int drover_permits_open(drover_arena *arena, const char *name, uint32_t n, drover_permits **ret_permits); /* 1..4096 */
drover_permits *drover_permits_free(drover_permits *permits);
/* [waits] A try (deadline 0) looks at one permit after the other: if meanwhile others give back and take, it may say
 * -EAGAIN although at each moment one was free. */
int drover_permits_acquire(drover_permits *permits, uint64_t deadline_ns);
int drover_permits_release(drover_permits *permits); /* -EOVERFLOW: this process holds none */
uint32_t drover_permits_available(const drover_permits *permits);

/* ---- event ---- */

int drover_event_open(drover_arena *arena, const char *name, drover_event **ret_event);
drover_event *drover_event_free(drover_event *event);
int drover_event_set(drover_event *event);   /* wakes all who wait; those who come later do not wait */
int drover_event_clear(drover_event *event); /* who was woken by a set returns 0 all the same */
bool drover_event_is_set(const drover_event *event);
int drover_event_wait(drover_event *event, uint64_t deadline_ns); /* [waits] */

/* ---- barrier ---- */

/* 1..1024 */
int drover_barrier_open(drover_arena *arena, const char *name, uint32_t parties, drover_barrier **ret_barrier);
drover_barrier *drover_barrier_free(drover_barrier *barrier);

/* What the last to arrive does before the others go on; a result < 0 breaks the barrier. Of this handle: give it in
 * every process. Before the handle is used. */
void drover_barrier_set_action(drover_barrier *barrier, int (*action)(void *user), void *user);

/* Returns the order of arrival, 0 … parties - 1, once all have arrived. -EPIPE: broken by a timeout, an abort, a reset
 * or a death. -ETIMEDOUT: broken by this caller's deadline. -EAGAIN (deadline 0): others are missing; the caller has
 * not arrived and nothing is broken. The action's result if it failed; -EBUSY: it freed the arena. -EPROTO: somebody
 * wrote into the barrier's memory what no party writes. [waits] */
int drover_barrier_wait(drover_barrier *barrier, uint64_t deadline_ns);
int drover_barrier_reset(drover_barrier *barrier); /* empty and whole; who waits gets -EPIPE. -EPROTO: as above */
int drover_barrier_abort(drover_barrier *barrier); /* broken until reset */
uint32_t drover_barrier_parties(const drover_barrier *barrier);
uint32_t drover_barrier_waiting(const drover_barrier *barrier);
bool drover_barrier_is_broken(const drover_barrier *barrier);

/* ---- reader-writer lock: many readers or one writer; a waiting writer goes before new readers ---- */

int drover_rwlock_open(drover_arena *arena, const char *name, drover_rwlock **ret_rwlock);
drover_rwlock *drover_rwlock_free(drover_rwlock *rwlock);

/* Not recursive. -EOWNERDEAD: a writer died, the data may be torn and the lock is not taken: take it for writing.
 * [waits] */
int drover_rwlock_read(drover_rwlock *rwlock, uint64_t deadline_ns);
/* -EOWNERDEAD: taken; repair the data, then drover_rwlock_consistent. [waits] */
int drover_rwlock_write(drover_rwlock *rwlock, uint64_t deadline_ns);
int drover_rwlock_unlock(drover_rwlock *rwlock); /* -EPERM: this thread does not write and this process does not read */
int drover_rwlock_consistent(drover_rwlock *rwlock); /* as of a mutex; for the writer */

/* ---- value and array: memory, with a lock beside it ---- */

/* `n` elements of `element_bytes` each, zero at first. A value is an array of one. */
int drover_array_open(drover_arena *arena, const char *name, uint32_t element_bytes, uint32_t n,
                      drover_array **ret_array);
drover_array *drover_array_free(drover_array *array);

/* The elements, at this process's address; 64-byte aligned; until the handle is freed. Others write there at any time:
 * lock, or use the atomic calls. Put no pointers there. */
void *drover_array_data(const drover_array *array);
uint32_t drover_array_length(const drover_array *array);

/* A recursive mutex of the array's own; errors as of drover_mutex_*. [waits] */
int drover_array_lock(drover_array *array, uint64_t deadline_ns);
int drover_array_unlock(drover_array *array);
int drover_array_consistent(drover_array *array);

/* Atomic access (sequentially consistent) to element i of an array of 8-byte elements, without the lock. -ERANGE: no
 * such element; -EINVAL: elements of another size. */
int drover_array_load(const drover_array *array, uint32_t i, uint64_t *ret_value);
int drover_array_store(drover_array *array, uint32_t i, uint64_t value);
/* ret_before may be NULL */
int drover_array_add(drover_array *array, uint32_t i, uint64_t value, uint64_t *ret_before);
/* 1: exchanged. 0: *expected is now what stands there. */
int drover_array_compare_exchange(drover_array *array, uint32_t i, uint64_t *expected, uint64_t desired);

/* ---- dictionary of fixed capacity ---- */

/* Up to `capacity` keys of up to `key_bytes` (at most 4096), values of up to `value_bytes` (at most 1 MiB). */
int drover_dictionary_open(drover_arena *arena, const char *name, uint32_t capacity, uint32_t key_bytes,
                           uint32_t value_bytes, drover_dictionary **ret_dictionary);
drover_dictionary *drover_dictionary_free(drover_dictionary *dictionary);

/* Each change happens wholly or not at all, whoever is killed. All of these take the dictionary's own recursive lock,
 * and do nothing but return -EOWNERDEAD after somebody died with it, until drover_dictionary_consistent: a change of
 * several keys under drover_dictionary_lock may be half done. -EMSGSIZE: key or value too long, or no room in the
 * caller's buffer
 * (*ret_bytes then tells how much is needed). [waits] */
int drover_dictionary_put(drover_dictionary *dictionary, const void *key, size_t key_bytes, const void *value,
                          size_t bytes, uint64_t deadline_ns); /* -ENOSPC: full */
int drover_dictionary_get(drover_dictionary *dictionary, const void *key, size_t key_bytes, void *buffer, size_t room,
                          size_t *ret_bytes, uint64_t deadline_ns); /* -ENOENT */
int drover_dictionary_remove(drover_dictionary *dictionary, const void *key, size_t key_bytes,
                             uint64_t deadline_ns); /* -ENOENT */
/* Goes through the keys, in no order: *position is 0 at first. 1: a key; 0: no more. Under drover_dictionary_lock each
 * key comes once. */
int drover_dictionary_next(drover_dictionary *dictionary, uint32_t *position, void *key, size_t room, size_t *ret_bytes,
                           uint64_t deadline_ns);
int drover_dictionary_count(drover_dictionary *dictionary, uint64_t deadline_ns);
int drover_dictionary_lock(drover_dictionary *dictionary, uint64_t deadline_ns);
int drover_dictionary_unlock(drover_dictionary *dictionary);
/* Unlike the others it does not want the lock held: it takes it, and waits at most 5 s for that (-ETIMEDOUT). -EINVAL:
 * nobody died. */
int drover_dictionary_consistent(drover_dictionary *dictionary);

/* ---- queue ---- */

enum drover_queue_flag {
        DROVER_QUEUE_FIFO = 1, /* in order of each producer, whoever consumes */
        DROVER_QUEUE_LIFO = 2,
        DROVER_QUEUE_PRIORITY = 3, /* the smallest number first, ties in order */
        DROVER_QUEUE_SIMPLE = 4,   /* FIFO whose items are done when they are got: no task_done, no join */
        /* With one of the first three: this handle's items are done when they are got, for consumers that never call
         * task_done. If this process dies with one, it is gone. join works; other handles may lease. */
        DROVER_QUEUE_DONE_AT_GET = 16,
};

/* Up to `capacity` items (1..65536) of up to `item_bytes` (1..1 MiB). An item that was got but is not done takes its
 * memory still, though it does not count as queued: if consumers sit on more than `capacity` of them, put finds no
 * room. */
int drover_queue_open(drover_arena *arena, const char *name, uint32_t capacity, uint32_t item_bytes, unsigned order,
                      drover_queue **ret_queue);
drover_queue *drover_queue_free(drover_queue *queue);

/* When it returns 0 the item is published and survives its producer. -EMSGSIZE, -ESHUTDOWN (closed), -EAGAIN (deadline
 * 0: full), -ETIMEDOUT. [waits] */
int drover_queue_put(drover_queue *queue, const void *data, size_t bytes, uint64_t deadline_ns);
int drover_queue_put_priority(drover_queue *queue, uint32_t priority, const void *data, size_t bytes,
                              uint64_t deadline_ns);

/* Copies an item out and leases it to this process: until task_done it comes back to the queue, at its old place, if
 * this process dies. -EMSGSIZE: it has more than `room` bytes, *ret_bytes tells how many; it stays queued. -ESHUTDOWN:
 * closed and empty. -EAGAIN, -ETIMEDOUT. [waits] */
int drover_queue_get(drover_queue *queue, void *buffer, size_t room, size_t *ret_bytes, uint64_t deadline_ns);

/* The item that this handle got first of those not done is done. -EINVAL: there is none. */
int drover_queue_task_done(drover_queue *queue);

/* Waits until every item that was put is done. [waits] */
int drover_queue_join(drover_queue *queue, uint64_t deadline_ns);

/* No more puts; what is queued can still be got. For everybody, for good. */
int drover_queue_close(drover_queue *queue);
uint32_t drover_queue_size(const drover_queue *queue); /* queued now; a hint */

/* ---- pipe: two ends, message boundaries kept, passes descriptors ---- */

/* Not in an arena: the ends are sockets. An end can be given to a job as an argument of type fd: its handler makes a
 * pipe of a dup() of it. In a worker messages are bytes: sending descriptors is -EPERM, and those that come are closed
 * unseen. */
int drover_pipe_new(drover_pipe **ret_a, drover_pipe **ret_b);
/* An end that came as a descriptor; takes it over, also on failure. */
int drover_pipe_new_from_fd(int fd, drover_pipe **ret_pipe);
drover_pipe *drover_pipe_free(drover_pipe *pipe);
/* To pass an end to another process, or to poll. Stays the pipe's. A plain descriptor: read() and write() of it wait.
 */
int drover_pipe_fd(const drover_pipe *pipe);

/* One message of 1 byte or more, with up to 8 descriptors, which stay the caller's. -EPIPE: the other end is closed.
 * -EMSGSIZE. -EPERM: descriptors, in a worker. [waits] while the socket's buffer is full */
int drover_pipe_send(drover_pipe *pipe, const void *data, size_t bytes, const int *fds, unsigned n_fds,
                     uint64_t deadline_ns);
/* *ret_bytes: the message's length. fds and n_fds may be NULL; *n_fds is the room on entry, the number on return; they
 * come CLOEXEC. -EPIPE: the other end is closed and nothing is left. -EPROTO: more bytes or descriptors than there is
 * room for; the message is lost. [waits] */
int drover_pipe_receive(drover_pipe *pipe, void *buffer, size_t room, size_t *ret_bytes, int *fds, unsigned *n_fds,
                        uint64_t deadline_ns);

/* ---- guards: whatever way leads out of the block, what was taken is given back ----
 *
 *     DROVER_LOCKED(guard, mutex, DROVER_FOREVER);
 *     if (guard.result < 0)
 *             return guard.result;
 *
 * After -EOWNERDEAD a mutex and a writing side are held, and given back as well. */
struct drover_guard {
        void *object; /* NULL: nothing to give back */
        int (*release)(void *object);
        int result;
};

struct drover_guard drover_guard_mutex(drover_mutex *mutex, uint64_t deadline_ns);
/* Waits for one unit and posts it back. A death in between loses it: permits do not. */
struct drover_guard drover_guard_semaphore(drover_semaphore *semaphore, uint64_t deadline_ns);
struct drover_guard drover_guard_permit(drover_permits *permits, uint64_t deadline_ns);
struct drover_guard drover_guard_read(drover_rwlock *rwlock, uint64_t deadline_ns);
struct drover_guard drover_guard_write(drover_rwlock *rwlock, uint64_t deadline_ns);
struct drover_guard drover_guard_array(drover_array *array, uint64_t deadline_ns);
struct drover_guard drover_guard_dictionary(drover_dictionary *dictionary, uint64_t deadline_ns);
/* Gives back early; the end of the block then does nothing. */
void drover_guard_release(struct drover_guard *guard);

#define DROVER_GUARD(guard, call) struct drover_guard guard __attribute__((cleanup(drover_guard_release))) = (call)
#define DROVER_LOCKED(guard, mutex, deadline_ns) DROVER_GUARD(guard, drover_guard_mutex((mutex), (deadline_ns)))
#define DROVER_COUNTED(guard, semaphore, deadline_ns)                                                                  \
        DROVER_GUARD(guard, drover_guard_semaphore((semaphore), (deadline_ns)))
#define DROVER_PERMITTED(guard, permits, deadline_ns) DROVER_GUARD(guard, drover_guard_permit((permits), (deadline_ns)))
#define DROVER_READING(guard, rwlock, deadline_ns) DROVER_GUARD(guard, drover_guard_read((rwlock), (deadline_ns)))
#define DROVER_WRITING(guard, rwlock, deadline_ns) DROVER_GUARD(guard, drover_guard_write((rwlock), (deadline_ns)))

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
