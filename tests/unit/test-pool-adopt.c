/* What a client hands back after its daemon's death: everything that is not exactly that is refused, and what is, is
 * put in order. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ipc/channel/bell.h"
#include "ipc/memory/event.h"
#include "tests/unit/skip.h"
#include "tests/unit/supervise-fixture.h"

static struct session_owner client;

static const char fake_schema[] = "fake\t1.0\nwork\t\t\t1\t0\t\n";

/* As a dead daemon would have left it; the client keeps `ret` mapped. */
static void make_old_channel(struct channel *ret, const char *number, int ret_fds[CHANNEL_PARTS]) {
        struct channel_geometry g;
        int fds[CHANNEL_PARTS];
        assert_int_equal(channel_geometry_init(&g, 8, 64), 0);
        assert_int_equal(channel_create(ret, &g, number, fds), 0);
        assert_int_equal(channel_open(fds, CHANNEL_CLIENT, ret_fds), 0);
        channel_close(fds);
}

static int hand_back(struct pool *p, const int *fds, uint32_t n_slots, struct session_offer *ret, struct fault *f) {
        const struct session_request q = {
                .pool = p,
                .uid = 1,
                .owner = &client,
                .back = fds,
                .n_slots = n_slots,
                .slot_bytes = 64,
                .schema_text = fake_schema,
                .schema_bytes = strlen(fake_schema),
        };
        bool wait;
        return supervisor_open_session(supervisor, &q, ret, &wait, f);
}

static void refuse(struct pool *p, const int *fds, uint32_t n_slots, const char *word) {
        struct session_offer offer;
        struct fault f;
        uint32_t n = supervisor_n_sessions(supervisor);
        assert_int_equal(hand_back(p, fds, n_slots, &offer, &f), -1);
        assert_int_equal(f.code, FAULT_INVALID_ARGS);
        assert_non_null(strstr(f.text, word));
        assert_int_equal(supervisor_n_sessions(supervisor), n);
}

/* As the memories of a channel, but for one. */
static void refuse_with(struct pool *p, const int *fds, enum channel_part part, int other, const char *word) {
        int all[CHANNEL_PARTS];
        memcpy(all, fds, sizeof(all));
        all[part] = other;
        refuse(p, all, 8, word);
}

static int open_again(int fd, int flags) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        return open(path, flags | O_CLOEXEC);
}

static void test_what_is_no_channel_is_not_adopted(void **state) {
        struct channel old, other;
        struct pool *p = add_pool(NULL);
        int fds[CHANNEL_PARTS], others[CHANNEL_PARTS], file;
        load();
        struct stand_in w = ready();
        make_old_channel(&old, "777", fds);
        make_old_channel(&other, "778", others);
        refuse(p, fds, 16, "not the memories"); /* another geometry */
        refuse(p, fds, 7, "not the memories");  /* no geometry at all */

        for (unsigned part = 0; part < CHANNEL_PARTS; part++) {
                char name[64];
                snprintf(name, sizeof(name), "%s777", channel_part_name(part));
                file = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
                assert_int_equal(ftruncate(file, (off_t)old.geometry.bytes[part]), 0);
                refuse_with(p, fds, part, file, "not the memories"); /* no seals */
                assert_int_equal(ftruncate(file, (off_t)old.geometry.bytes[part] + 4096), 0);
                assert_int_equal(fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
                refuse_with(p, fds, part, file, "not the memories"); /* another size */
                close(file);
                file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
                refuse_with(p, fds, part, file, "not the memories");
                close(file);
                refuse_with(p, fds, part, others[part], "not the memories"); /* of another channel */
                for (unsigned as = 0; as < CHANNEL_PARTS; as++)
                        if (as != part)
                                refuse_with(p, fds, part, fds[as],
                                            "not the memories"); /* twice, or as something else */
        }
        for (unsigned part = CHANNEL_COMMON; part <= CHANNEL_JOBS; part++) {
                file = open_again(fds[part], O_RDONLY);
                refuse_with(p, fds, part, file, "not the memories"); /* who hands it back may not write it */
                close(file);
        }
        old.head->header.version++;
        refuse(p, fds, 8, "not the memories");
        old.head->header.version--;

        struct session_offer offer, again;
        struct fault f;
        assert_int_equal(hand_back(p, fds, 8, &offer, &f), 0);
        for (unsigned part = 0; part < CHANNEL_PARTS; part++)
                assert_int_equal(offer.memory_fds[part], -1);   /* its client has them */
        assert_int_equal(hand_back(p, fds, 8, &again, &f), -1); /* its jobs may run by now */
        assert_non_null(strstr(f.text, "a session has it already"));
        for (unsigned part = 0; part < CHANNEL_PARTS; part++)
                refuse_with(p, others, part, fds[part], "a session has it already");
        session_offer_close(&offer);
        UNTIL(supervisor_n_sessions(supervisor) == 0);
        channel_close(fds);
        channel_close(others);
        channel_unmap(&old);
        channel_unmap(&other);
        end(&w, CLD_EXITED, 0);
}

/* Nobody is waited for: whoever has the only description of a memory can have a lease on it. */
static void test_a_leased_memory_is_not_waited_for(void **state) {
        struct channel_geometry g;
        struct channel old;
        struct pool *p = add_pool(NULL);
        int fds[CHANNEL_PARTS], leased;
        load();
        struct stand_in w = ready();
        make_old_channel(&old, "777", fds);
        g = old.geometry;
        channel_unmap(&old);
        leased = open_again(fds[CHANNEL_RESULTS], O_RDONLY);
        close(fds[CHANNEL_RESULTS]);
        fds[CHANNEL_RESULTS] = leased;
        if (fcntl(leased, F_SETLEASE, F_RDLCK) < 0)
                SKIP("the memory here takes no lease");
        signal(SIGIO, SIG_IGN);
        uint64_t begun_ns = event_now_ns();
        refuse(p, fds, g.n_slots, "not the memories");
        assert_true(event_now_ns() - begun_ns < UINT64_C(5000000000));
        channel_close(fds);
        end(&w, CLD_EXITED, 0);
}

static uint32_t queue(struct channel *c, uint32_t slot) {
        assert_int_equal(channel_begin(c, slot), 0);
        assert_int_equal(channel_commit(c, slot, 1), 0);
        return slot;
}

static void set_word(struct channel *c, uint32_t slot, unsigned state, unsigned flags, unsigned attempt,
                     unsigned owner) {
        uint64_t word = channel_word(c, slot);
        assert_true(channel_cas(c, slot, word, SLOT_WORD(state, flags, attempt, owner, slot_generation(word) + 1)));
}

/* One slot for every state that a killed daemon can leave, and each is served or told afterwards. */
static void test_an_adopted_channel_is_put_in_order(void **state) {
        struct session_offer offer;
        struct channel old;
        struct fault f;
        struct pool *p = add_pool(NULL);
        load();
        struct stand_in w = ready();
        int fds[CHANNEL_PARTS];
        make_old_channel(&old, "777", fds);
        set_word(&old, 0, SLOT_FILLING, 0, 0, SLOT_OWNER_CLIENT);
        queue(&old, 1);
        set_word(&old, 2, SLOT_QUEUED, 0, 1, SLOT_OWNER_NONE);         /* never pushed */
        set_word(&old, 3, SLOT_RUNNING, 0, 1, SLOT_OWNER_WORKER0 + 5); /* runs again */
        for (uint32_t slot = 0; slot < 8; slot++)
                channel_job(&old, slot)->type = p->schema->jobs[0].number;
        set_word(&old, 4, SLOT_RUNNING, 0, LAYOUT_MAX_ATTEMPTS, SLOT_OWNER_WORKER0); /* not again */
        set_word(&old, 5, SLOT_TIMED_OUT, SLOT_QUARANTINE, 1, SLOT_OWNER_WORKER0);   /* not told */
        set_word(&old, 6, SLOT_DONE, 0, 1, SLOT_OWNER_WORKER0);                      /* not told */
        set_word(&old, 7, SLOT_RUNNING, SLOT_CANCEL, 1, SLOT_OWNER_BROKER);          /* by nobody, to be ended */
        atomic_store(&old.head->closed, CHANNEL_CLOSED);
        assert_int_equal(hand_back(p, fds, 8, &offer, &f), 0);
        struct pool_channel *c = pool_channel_at(p, offer.channel);

        static const enum slot_state expected[] = {SLOT_FREE,     SLOT_QUEUED,    SLOT_QUEUED, SLOT_QUEUED,
                                                   SLOT_POISONED, SLOT_TIMED_OUT, SLOT_DONE,   SLOT_CANCELLED};
        for (uint32_t slot = 0; slot < 8; slot++)
                assert_int_equal(slot_state(channel_word(&old, slot)), expected[slot]);
        assert_int_equal(slot_attempt(channel_word(&old, 3)), 2);
        assert_int_equal(slot_flags(channel_word(&old, 5)), 0);
        assert_int_equal(channel_take_done(&old, 0), 0xf0);
        assert_int_equal(atomic_load(&old.head->closed), CHANNEL_OPEN);
        assert_true(bell_channel_has_work(p->bells[c->bell].memory, c->index));

        uint32_t slot;
        uint64_t word, record;
        const uint32_t order[] = {1, 3, 2}; /* what stood in the ring, then what had to be pushed */
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(channel_claim(&c->channel, c->index, 0, false, 0, (_Atomic uint64_t *)&record, -1,
                                               &slot, &word),
                                 CHANNEL_CLAIMED);
                assert_int_equal(slot, order[i]);
        }
        assert_false(channel_has_work(&c->channel));
        session_offer_close(&offer);
        UNTIL(supervisor_n_sessions(supervisor) == 0);
        channel_close(fds);
        channel_unmap(&old);
        end(&w, CLD_EXITED, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_what_is_no_channel_is_not_adopted, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_leased_memory_is_not_waited_for, setup, teardown),
                cmocka_unit_test_setup_teardown(test_an_adopted_channel_is_put_in_order, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
