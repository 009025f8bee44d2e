/* Named places between two atomic operations, where a test kills the process. Nothing in a normal build. */
#pragma once

#ifdef DROVER_KILL_POINTS
void kill_point(const char *name);
#define KILL_POINT(name) kill_point(name)
#else
#define KILL_POINT(name) ((void)0)
#endif
