/* A verdict in one line, for people. The numbers behind it stand in struct session_result. */
#include <stdio.h>

#include "ipc/client/session/session.h"
#include "ipc/values/words.h"

static void session_describe_reason(const struct layout_verdict *v, char *text, size_t bytes) {
        switch (v->reason) {
        case REASON_NONE:
                text[0] = 0;
                break;
        case REASON_EXIT:
                snprintf(text, bytes, ": exit code %u", v->status);
                break;
        case REASON_SIGNAL:
                snprintf(text, bytes, ": signal %s", words_signal((int)v->signal));
                break;
        case REASON_SYSCALL:
                if (v->what[0])
                        snprintf(text, bytes, ": forbidden system call %.*s", (int)sizeof v->what, v->what);
                else
                        snprintf(text, bytes, ": forbidden system call");
                break;
        default:
                snprintf(text, bytes, ": %s", words_reason(v->reason));
                break;
        }
}

void session_describe(const struct session_result *r, char *text, size_t text_bytes) {
        uint32_t attempts = r->verdict.attempts ? r->verdict.attempts : r->attempt;
        char reason[32 + LAYOUT_WHAT];
        session_describe_reason(&r->verdict, reason, sizeof reason);
        switch (r->state) {
        case SLOT_DONE:
                snprintf(text, text_bytes, "done");
                break;
        case SLOT_FAILED:
                snprintf(text, text_bytes, "failed: %.*s", (int)(r->bytes < 1000 ? r->bytes : 1000),
                         (const char *)r->data);
                break;
        case SLOT_EXPIRED:
                snprintf(text, text_bytes, "expired: no worker took it before its queue deadline");
                break;
        case SLOT_POISONED:
                snprintf(text, text_bytes, "poisoned after %u attempt%s%s", attempts, attempts == 1 ? "" : "s", reason);
                break;
        case SLOT_TIMED_OUT:
                snprintf(text, text_bytes, "timed-out in attempt %u%s", attempts,
                         reason[0] ? reason : ": its soft limit passed and it stopped");
                break;
        default:
                if (reason[0])
                        snprintf(text, text_bytes, "%s in attempt %u%s", words_slot_state(r->state), attempts, reason);
                else
                        snprintf(text, text_bytes, "%s", words_slot_state(r->state));
                break;
        }
}
