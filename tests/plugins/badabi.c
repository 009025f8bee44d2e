/* Speaks an ABI that no host of this release knows. */
#include <drover/plugin.h>

__attribute__((section(".drover.info"), DROVER__RETAIN used, aligned(1))) static const char info[] =
        "abi=99.0\0name=badabi\0version=1.0\0sanitizer=0";

const struct drover_plugin *drover_plugin_entry(const struct drover_host *host) { __builtin_trap(); }
