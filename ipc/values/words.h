/* The words of the D-Bus API for the numbers in shared memory. A number out of range gives "?". */
#pragma once

#include "ipc/layout.h"

const char *words_slot_state(unsigned state); /* queued running done failed cancelled expired timed-out poisoned lost */
const char *words_reason(unsigned reason);    /* exit signal oom … spawner-lost; "" for none */
const char *words_phase(unsigned phase);      /* "in a constructor", … "in the handler"; "" for none */
const char *words_signal(int signal);         /* "SIGSEGV"; "signal 99" never: "?" */
