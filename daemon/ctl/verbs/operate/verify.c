/* verify: configuration files, without a daemon.
 *
 * The daemon's own reader of settings says what is wrong; here it is only printed, one line a problem, in the form that
 * editors jump to. Warnings are what droverd warns about, too, and no failure. */
#include <string.h>

#include "daemon/config/config-verify.h"
#include "daemon/ctl/ctl.h"
#include "daemon/ctl/show/json.h"
#include "daemon/ctl/show/terminal.h"

struct verify {
        struct ctl *c;
        struct json_object *problems;
};

static void on_problem(void *user, bool is_error, const char *text) {
        struct verify *v = user;
        struct json_object *o = json_object_new_object();

        json_object_object_add(o, "severity", json_object_new_string(is_error ? "error" : "warning"));
        json_object_object_add(o, "text", json_text_new(text, strlen(text)));
        json_object_array_add(v->problems, o);
        if (v->c->json != CTL_JSON_OFF)
                return;
        ctl_cleanup(ctl_freep) char *plain = terminal_plain(text, strlen(text));
        fprintf(stderr, "%s%s\n", plain ? plain : "?", is_error ? "" : " (a warning)");
}

int verb_verify(struct ctl *c) {
        ctl_cleanup(json_putp) struct json_object *problems = json_object_new_array();
        struct verify v = {.c = c, .problems = problems};
        int n_errors = 0;

        for (int i = 0; i < c->n_operands; i++) {
                int n = config_verify(c->operands[i], on_problem, &v);

                if (n < 0) {
                        ctl_error(
                                "verify %s: what it is says its name: NAME.pool, drover.conf, or NAME.conf in a folder "
                                "NAME.pool.d or drover.conf.d",
                                c->operands[i]);
                        return CTL_USAGE;
                }
                n_errors += n;
        }
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, problems, c->json);
        return n_errors > 0 ? CTL_JOB_FAILED : CTL_OK;
}
