/* Times and sizes as people read them. */
#pragma once

#include <stdint.h>

enum { TEXT_MAX = 32 };

/* "310 µs", "1.2 ms", "4.0 s", "12min 5s", "3h 20min", "9d 4h"; returns `text`. */
const char *text_duration(uint64_t us, char text[TEXT_MAX]);
/* "512", "4.0K", "1.5G": powers of 1024. */
const char *text_bytes(uint64_t bytes, char text[TEXT_MAX]);
/* CLOCK_REALTIME as "2026-11-22 14:05:09", here. */
const char *text_moment(uint64_t realtime_us, char text[TEXT_MAX]);
/* How long ago; 0 for what is to come, and for 0, which is no time. */
uint64_t text_since(uint64_t realtime_us);
