/* Manager.Submit: a job's arguments and options as a message.
 *
 * The command line's words are a checked map by now, which ipc/variants puts into the message. Options go out in the
 * type that the bus interface gives them, as the words of the command line say them. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "daemon/config/config-value.h"
#include "daemon/ctl/words/submit.h"
#include "ipc/memory/sealed.h"
#include "ipc/values/priority.h"
#include "ipc/values/variants.h"

enum { MAX_AFTER = 1024 /* as the bus takes */, MAX_INLINE = 4096 };

/* ---- arguments ---- */

/* A long payload goes as a memory file, whatever the pool's SlotSize= is. */
static int append_args(sd_bus_message *m, const struct submit_args *a) {
        struct variants_fds fds = {.fds = a->fds->fds, .n_fds = a->fds->n_fds, .payload_fd = a->payload_fd};
        ctl_cleanup(ctl_closep) int made = -1; /* the message has its own */
        const char *bad;
        int r = 0;

        if (a->fields->is_raw && a->payload_fd < 0 && a->bytes > MAX_INLINE) {
                r = sealed_create("droverctl-payload", a->args, a->bytes, &made);
                fds.payload_fd = made;
        }
        return r < 0 ? r : variants_append(m, a->fields, a->args, a->bytes, &fds, &bad);
}

/* ---- options ---- */

/* "7,8": job numbers. How many, at most `room`; -EINVAL. */
static int parse_jobs(const char *list, uint64_t *ret, unsigned room) {
        unsigned n = 0;
        char *end;

        do {
                errno = 0;
                if (n == room || *list < '0' || *list > '9')
                        return -EINVAL;
                ret[n++] = strtoull(list, &end, 10);
                if (errno || (*end && *end != ','))
                        return -EINVAL;
                list = end + 1;
        } while (*end);
        return (int)n;
}

static int say_wrong(const struct ctl_setting *s, const char *what) {
        ctl_error("--%s=%s: not %s", s->name, s->value, what);
        return CTL_USAGE;
}

/* A word of PRIORITY_WORDS, or the number that it stands for. */
static int parse_priority(const struct ctl_setting *s, uint64_t *ret) {
        const char *word = PRIORITY_WORDS;

        if (value_parse_number(s->value, ret) >= 0 && *ret <= PRIORITY_URGENT)
                return CTL_OK;
        for (*ret = PRIORITY_LOW; *ret <= PRIORITY_URGENT; ++*ret) {
                size_t n = strcspn(word, "|");

                if (strlen(s->value) == n && strncmp(s->value, word, n) == 0)
                        return CTL_OK;
                word += n + (word[n] == '|');
        }
        return say_wrong(s, "low, normal, high or urgent, nor a number from 1 (low) to 4 (urgent)");
}

/* The value of a number or a time in µs. CTL_OK, or what is wrong is said. */
static int parse_option(const struct ctl_setting *s, uint64_t *ret) {
        uint64_t jobs[MAX_AFTER];
        bool is_time = s->type == 't' || s->type == 'n';
        int r;

        if (s->type == 'a')
                return parse_jobs(s->value, jobs, MAX_AFTER) < 0 ? say_wrong(s, "up to 1024 numbers of jobs like 7,8")
                                                                 : CTL_OK;
        if (s->type == 's')
                return CTL_OK;
        if (s->type == 'p')
                return parse_priority(s, ret);
        r = is_time ? value_parse_time(s->value, ret) : value_parse_number(s->value, ret);
        if (r < 0 || (s->type == 'u' && *ret > UINT32_MAX) || (is_time && *ret == VALUE_INFINITY))
                return say_wrong(s, is_time ? "a time like 20 (seconds), 100ms or 5min" : "a number");
        if (is_time)
                *ret /= 1000;
        return CTL_OK;
}

int submit_check_options(const struct ctl *c) {
        uint64_t value;
        int code = CTL_OK;

        for (unsigned i = 0; i < c->n_settings && code == CTL_OK; i++)
                code = parse_option(&c->settings[i], &value);
        return code;
}

static uint64_t realtime_us(void) {
        struct timespec t;

        clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static int append_jobs(sd_bus_message *m, const struct ctl_setting *s) {
        uint64_t jobs[MAX_AFTER];
        int r, n = parse_jobs(s->value, jobs, MAX_AFTER);

        if (n < 0)
                return n;
        r = sd_bus_message_open_container(m, SD_BUS_TYPE_DICT_ENTRY, "sv");
        if (r >= 0)
                r = sd_bus_message_append_basic(m, 's', s->name);
        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_VARIANT, "at");
        if (r >= 0)
                r = sd_bus_message_append_array(m, 't', jobs, (size_t)n * sizeof *jobs);
        for (int level = 0; r >= 0 && level < 2; level++)
                r = sd_bus_message_close_container(m);
        return r;
}

static int append_option(sd_bus_message *m, const struct ctl_setting *s) {
        uint64_t value = 0;

        if (parse_option(s, &value) != CTL_OK)
                return -EINVAL;
        switch (s->type) {
        case 'a':
                return append_jobs(m, s);
        case 's':
                return sd_bus_message_append(m, "{sv}", s->name, "s", s->value);
        case 'n':
                return sd_bus_message_append(m, "{sv}", "not-before", "t", realtime_us() + value);
        case 'p':
        case 'u':
                return sd_bus_message_append(m, "{sv}", s->name, "u", (uint32_t)value);
        default:
                return sd_bus_message_append(m, "{sv}", s->name, "t", value);
        }
}

static int append_options(sd_bus_message *m, const struct ctl *c) {
        int r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");

        for (unsigned i = 0; r >= 0 && i < c->n_settings; i++)
                r = append_option(m, &c->settings[i]);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

int submit_job(struct ctl *c, const char *pool, const char *type, const struct submit_args *args,
               struct json_object **ret) {
        static const struct remote_call plain = {.has_effect = true};
        ctl_cleanup(remote_message_unrefp) sd_bus_message *m = NULL;
        int error;

        error = sd_bus_message_new_method_call(remote_bus(c->remote), &m, REMOTE_NAME, REMOTE_MANAGER,
                                               REMOTE_NAME ".Manager", "Submit");
        if (error >= 0)
                error = sd_bus_message_append(m, "ss", pool, type);
        if (error >= 0)
                error = append_args(m, args);
        if (error >= 0)
                error = append_options(m, c);
        return error < 0 ? error : remote_exchange(c->remote, m, &plain, ret);
}

void submit_print(struct ctl *c, struct json_object *submitted) {
        ctl_cleanup(json_putp) struct json_object *o = json_object_new_object();

        json_object_object_add(o, "id", json_object_get(json_at(submitted, 0)));
        json_object_object_add(o, "path", json_object_get(json_at(submitted, 1)));
        if (c->json != CTL_JSON_OFF)
                json_print(stdout, o, c->json);
        else
                printf("%" PRIu64 "\n", json_number(o, "id"));
}
