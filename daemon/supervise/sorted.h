/* A list that stays sorted by a number. What comes is usually the last, so the place is looked for from the end. */
#pragma once

#include <sys/queue.h>

/* `list` is the name of the list's type; of equal numbers the one that came first stays first. */
#define SORTED_INSERT(head, list, element, number, link)                                                               \
        do {                                                                                                           \
                __typeof__(element) sorted_before = TAILQ_LAST(head, list);                                            \
                while (sorted_before && sorted_before->number > (element)->number)                                     \
                        sorted_before = TAILQ_PREV(sorted_before, list, link);                                         \
                if (sorted_before)                                                                                     \
                        TAILQ_INSERT_AFTER(head, sorted_before, element, link);                                        \
                else                                                                                                   \
                        TAILQ_INSERT_HEAD(head, element, link);                                                        \
        } while (0)
