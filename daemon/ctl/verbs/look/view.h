/* Lists of objects on the bus, and their tables. */
#pragma once

#include "daemon/ctl/remote.h"
#include "daemon/ctl/show/table.h"
#include "daemon/ctl/show/text.h"

enum { VIEW_MAX_COLUMNS = 14 };

struct view {
        const char *const *keys; /* the property of each column */
        const struct table_column *columns;
        unsigned n_columns;
};

/* Manager's list method `member`, each entry's properties (its path is element `path_at`) in *ret, an array; only those
 * of `pool` if that is not NULL. CTL_OK or the exit code, said. */
int view_gather(struct ctl *c, const char *member, const char *interface, unsigned path_at, const char *pool,
                struct json_object **ret);
/* Rows of objects, one column a property, as wide as the terminal lets it. CTL_OK, CTL_BROKEN */
int view_print(struct ctl *c, const struct view *view, struct json_object *objects);
/* How a table looks on standard output. */
struct table_look view_look(const struct ctl *c);
/* One quantile of a pool's Latency, or of a job type's in it ("run-p99-usec"), as people read it; "-" if none is known.
 */
const char *view_latency(struct json_object *latency, const char *key, char text[TEXT_MAX]);
/* The time of the bus under `key`, if there is one, as people read it, under `as`. */
void view_spell_moment(struct json_object *o, const char *key, const char *as);
/* Is there a pool of that name? CTL_OK or the exit code, said. */
int view_check_pool(struct ctl *c, const char *pool);

extern const struct view view_pools, view_workers;
