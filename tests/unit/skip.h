/* Leaves out the rest of a test, and says why in the words that ./check looks for. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SKIP(why)                                                                                                      \
        do {                                                                                                           \
                print_message("skipped '%s'\n", why);                                                                  \
                skip();                                                                                                \
        } while (0)
