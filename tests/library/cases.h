/* Cases of libdrover beside a real daemon: tests/integration/test_library.py starts one, then runs `library CASE` for
 * each. A case ends the program with a line about what is wrong, or returns. */
#pragma once

#include <drover/drover.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

/* r must be `expected`; says what came instead, with the library's own words. */
#define EXPECT(expected, r) expect(__FILE__, __LINE__, #r, (long long)(expected), (long long)(r))
#define EXPECT_TRUE(condition) expect(__FILE__, __LINE__, #condition, 1, !!(condition))
#define EXPECT_TEXT(word, text) expect_text(__FILE__, __LINE__, word, text)

void expect(const char *file, int line, const char *what, long long expected, long long is);
/* `word` stands in `text`. */
void expect_text(const char *file, int line, const char *word, const char *text);

/* The connection that the cases share, and a pool of it. */
extern drover *d;
drover_pool *pool(const char *name);
uint64_t now_ns(void);
/* Of the processor, all threads. */
double cpu_seconds(void);
/* How many descriptors are open. */
unsigned open_fds(void);
/* Fills the table of descriptors but for `n`; and frees it again. */
void leave_free(unsigned n);
void leave_all_free(void);
/* A job `sleep`; NULL: no options. */
drover_future *submit_sleep(drover_pool *p, double seconds, const struct drover_options *o);
/* A job `sleep` of pool `name`. */
drover_future *sleeper(const char *name, double seconds);
/* Until that job runs, 10 s at most. */
void wait_running(drover_future *f);

/* Arguments of typed's job `echo`, and that they came back. `text` of three bytes, NULL: one that holds a 0. */
drover_args *all_types(const char *text);
void check_types(drover_future *f, const char *text);

void case_values(void);
void case_wrong_arguments(void);
void case_raw(void);
void case_options(void);
void case_errors(void);
void case_no_such(void);

void case_wait(void);
void case_deadlines(void);
void case_cancel(void);
void case_callbacks(void);
void case_callbacks_that_ask(void);
void case_error_texts(void);
void case_full(void);
void case_dropped(void);

void case_signals(void);

void case_no_descriptors(void);

void case_first(void);
void case_completion_order(void);
void case_late_look(void);
void case_several_pools(void);
void case_map_of_failures(void);
void case_killed_worker(void);
void case_map_stops(void);
void case_automatic_chunk(void);
void case_shutdown(void);
void case_widths(void);

void case_bus_jobs(void);
void case_bus_and_channel(void);
void case_bus_cancel(void);
void case_kill(void);
void case_kill_at_the_end(void);
void case_progress(void);
void case_timer(void);
void case_schedule(void);
void case_key_and_after(void);
void case_key_for_nobody(void);

void case_after(void);
void case_chord(void);
void case_after_a_bad_end(void);
void case_fds(void);
void case_fds_and_numbers(void);
void case_fds_bus(void);
void case_fds_retry(void);
void case_fds_let_go(void);
void case_fds_for_nobody(void);
void case_large(void);
void case_memory_files(void);
void case_many_fd_results(void);
void case_many_fds(void);
void case_map_of_fd_results(void);
void case_foreign_fd(void);
void case_shared_array(void);

void case_items(void);
void case_items_of_a_second_attempt(void);
void case_item_callbacks(void);
void case_items_let_go(void);
void case_items_lost(void);
void case_items_short(void);
void case_items_second_reader(void);

void case_pipes(void);

void case_queue_timeout(void);
void case_queue_deadline(void);
void case_runs(void);
void case_full_bus(void);
void case_no_daemon(void);
void case_too_large(void);

void case_ends_in_children(void);
void case_ends_without_descriptors(void);
void case_ends_in_callbacks(void);

void case_fork(void);
void case_descriptors(void);
void case_loop(void);
void case_close(void);
void case_threads(void);
void case_daemon_returns(void);
void case_numbers_stay(void);
void case_daemon_stopped(void);

void case_bus_returns(void);
void case_bus_returns_in_a_wait(void);
void case_bus_gone(void);
void case_bus_hangs(void);
void case_bus_goes_in_a_call(void);
void case_thrown_out(void);

void case_bus_job_after_a_restart(void);
void case_no_news_without_jobs(void);
void case_pool_opens_again(void);
void case_ending(void);
void case_drain_all(void);
void case_result_not_kept(void);
void case_unheard(void);
void case_unread(void);
