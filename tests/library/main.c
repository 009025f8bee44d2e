/* library CASE: one case against the daemon of DBUS_SESSION_BUS_ADDRESS. */
#include "tests/library/cases.h"

int main(int argc, char *argv[]) {
        static const struct {
                const char *name;
                void (*run)(void);
        } cases[] = {
                {"after", case_after},
                {"after-a-bad-end", case_after_a_bad_end},
                {"automatic-chunk", case_automatic_chunk},
                {"bus-and-channel", case_bus_and_channel},
                {"bus-cancel", case_bus_cancel},
                {"bus-job-after-a-restart", case_bus_job_after_a_restart},
                {"bus-jobs", case_bus_jobs},
                {"callbacks", case_callbacks},
                {"callbacks-that-ask", case_callbacks_that_ask},
                {"cancel", case_cancel},
                {"chord", case_chord},
                {"close", case_close},
                {"completion-order", case_completion_order},
                {"daemon-returns", case_daemon_returns},
                {"daemon-stopped", case_daemon_stopped},
                {"deadlines", case_deadlines},
                {"descriptors", case_descriptors},
                {"dropped", case_dropped},
                {"ends-in-callbacks", case_ends_in_callbacks},
                {"ends-in-children", case_ends_in_children},
                {"ends-without-descriptors", case_ends_without_descriptors},
                {"error-texts", case_error_texts},
                {"errors", case_errors},
                {"fds", case_fds},
                {"fds-and-numbers", case_fds_and_numbers},
                {"fds-bus", case_fds_bus},
                {"fds-let-go", case_fds_let_go},
                {"fds-retry", case_fds_retry},
                {"first", case_first},
                {"foreign-fd", case_foreign_fd},
                {"fork", case_fork},
                {"full", case_full},
                {"full-bus", case_full_bus},
                {"item-callbacks", case_item_callbacks},
                {"items", case_items},
                {"items-let-go", case_items_let_go},
                {"items-lost", case_items_lost},
                {"items-second-reader", case_items_second_reader},
                {"items-of-a-second-attempt", case_items_of_a_second_attempt},
                {"key-and-after", case_key_and_after},
                {"key-for-nobody", case_key_for_nobody},
                {"kill", case_kill},
                {"kill-at-the-end", case_kill_at_the_end},
                {"killed-worker", case_killed_worker},
                {"large", case_large},
                {"late-look", case_late_look},
                {"loop", case_loop},
                {"many-fd-results", case_many_fd_results},
                {"many-fds", case_many_fds},
                {"map-of-fd-results", case_map_of_fd_results},
                {"map-of-failures", case_map_of_failures},
                {"map-stops", case_map_stops},
                {"memory-files", case_memory_files},
                {"no-descriptors", case_no_descriptors},
                {"no-news-without-jobs", case_no_news_without_jobs},
                {"no-daemon", case_no_daemon},
                {"no-such", case_no_such},
                {"numbers-stay", case_numbers_stay},
                {"options", case_options},
                {"pipes", case_pipes},
                {"pool-opens-again", case_pool_opens_again},
                {"ending", case_ending},
                {"drain-all", case_drain_all},
                {"progress", case_progress},
                {"queue-deadline", case_queue_deadline},
                {"queue-timeout", case_queue_timeout},
                {"raw", case_raw},
                {"result-not-kept", case_result_not_kept},
                {"runs", case_runs},
                {"schedule", case_schedule},
                {"several-pools", case_several_pools},
                {"shared-array", case_shared_array},
                {"shutdown", case_shutdown},
                {"signals", case_signals},
                {"threads", case_threads},
                {"timer", case_timer},
                {"too-large", case_too_large},
                {"unheard", case_unheard},
                {"unread", case_unread},
                {"values", case_values},
                {"wait", case_wait},
                {"widths", case_widths},
                {"wrong-arguments", case_wrong_arguments},
        };
        for (size_t i = 0; i < sizeof cases / sizeof *cases && argc == 2; i++) {
                if (strcmp(argv[1], cases[i].name) != 0)
                        continue;
                EXPECT(0, drover_open(NULL, &d));
                cases[i].run();
                d = drover_close(d);
                return 0;
        }
        fputs("library CASE\n", stderr);
        return 2;
}
