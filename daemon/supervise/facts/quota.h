/* What each uid has of something that is to be shared. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct quota {
        void *users; /* tsearch tree; all zero: nobody has anything */
};

/* Root and the daemon's own uid may have as much as there is. */
bool quota_is_free(uid_t uid);
/* n more for this uid. -EDQUOT: that would be more than `max`; -ENOMEM. */
int quota_take(struct quota *q, uid_t uid, uint64_t n, uint64_t max);
void quota_give(struct quota *q, uid_t uid, uint64_t n);
/* Would it get one more? */
bool quota_has_room(const struct quota *q, uid_t uid, uint64_t max);
void quota_deinit(struct quota *q); /* whatever they have */
