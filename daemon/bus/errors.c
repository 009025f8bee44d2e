/* Faults as D-Bus errors. A text may quote anybody, and may have been cut in the middle of a character, so it is made
 * valid UTF-8 first: the bus refuses a message that is not. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/bus/face.h"
#include "ipc/values/utf8.h"

#define ERROR(name) "org.drover1.Error." name

static const char *const names[FAULT_N] = {
        [FAULT_NO_SUCH_POOL] = ERROR("NoSuchPool"),
        [FAULT_NO_SUCH_JOB_TYPE] = ERROR("NoSuchJobType"),
        [FAULT_NO_SUCH_JOB] = ERROR("NoSuchJob"),
        [FAULT_NO_SUCH_WORKER] = ERROR("NoSuchWorker"),
        [FAULT_QUEUE_FULL] = ERROR("QueueFull"),
        [FAULT_POOL_STOPPED] = ERROR("PoolStopped"),
        [FAULT_POOL_REFUSED] = ERROR("PoolRefused"),
        [FAULT_FAILED] = ERROR("Failed"),
        [FAULT_CANCELLED] = ERROR("Cancelled"),
        [FAULT_EXPIRED] = ERROR("Expired"),
        [FAULT_TIMED_OUT] = ERROR("TimedOut"),
        [FAULT_POISONED] = ERROR("Poisoned"),
        [FAULT_LOST] = ERROR("Lost"),
        [FAULT_NOT_FINISHED] = ERROR("NotFinished"),
        [FAULT_RESULT_EXPIRED] = ERROR("ResultExpired"),
        [FAULT_SHUTTING_DOWN] = ERROR("ShuttingDown"),
        [FAULT_INVALID_ARGS] = SD_BUS_ERROR_INVALID_ARGS,
        [FAULT_ACCESS_DENIED] = SD_BUS_ERROR_ACCESS_DENIED,
        [FAULT_LIMITS_EXCEEDED] = SD_BUS_ERROR_LIMITS_EXCEEDED,
        [FAULT_NOT_SUPPORTED] = SD_BUS_ERROR_INVALID_ARGS, /* "…is not built yet" */
        [FAULT_INTERNAL] = SD_BUS_ERROR_FAILED,
};

void bus_clean_text(char *text) {
        size_t left = strlen(text), n;

        for (; left > 0; text += n, left -= n) {
                n = utf8_length(text, left);
                if (n == 0) {
                        *text = '?';
                        n = 1;
                }
        }
}

int bus_error_from_fault(sd_bus_error *e, const struct fault *f) {
        char text[sizeof(f->text)];
        const char *name = f->code > FAULT_NONE && f->code < FAULT_N ? names[f->code] : NULL;

        memcpy(text, f->text, sizeof(text));
        text[sizeof(text) - 1] = '\0';
        bus_clean_text(text);
        return sd_bus_error_set(e, name ? name : SD_BUS_ERROR_FAILED, text);
}

int bus_unknown_object(sd_bus_message *m, sd_bus_error *e) {
        return sd_bus_error_setf(e, SD_BUS_ERROR_UNKNOWN_OBJECT, "Unknown object '%s'.", sd_bus_message_get_path(m));
}

int bus_invalid(sd_bus_error *e, const char *format, ...) {
        struct fault f = {.code = FAULT_INVALID_ARGS};
        va_list ap;

        va_start(ap, format);
        vsnprintf(f.text, sizeof(f.text), format, ap);
        va_end(ap);
        return bus_error_from_fault(e, &f);
}
