/* One line a message: to the journal when stderr is one (with "<N>" priorities), else "droverd: …" on stderr. One
 * thread. */
#pragma once

enum log_level {
        LOG_LEVEL_ERROR = 3,
        LOG_LEVEL_WARNING = 4,
        LOG_LEVEL_NOTICE = 5,
        LOG_LEVEL_INFO = 6,
        LOG_LEVEL_DEBUG = 7
};

void log_open(const char *program, enum log_level level);
enum log_level log_get_level(void);
int log_level_from_string(const char *word, enum log_level *ret); /* error warning notice info debug; -EINVAL */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* From now on no message waits for whoever reads stderr: what does not fit into its socket is dropped, counted, and
 * told when there is room again. */
enum log_way {
        LOG_WRITER, /* a stderr that is no socket gets one, and a process behind it that may wait: only while there is
                       one thread */
        LOG_NO_WRITER, /* it stays as it is; if it is a file, that is waited for all the same */
};
int log_detach(enum log_way way); /* -errno: all is as before */
/* Waits up to a second until everything is written. */
void log_finish(void);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_write(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
