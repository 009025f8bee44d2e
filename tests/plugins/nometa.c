/* A plugin but for what DROVER_REGISTER leaves behind: it has no section .drover.info. */
#include <drover/plugin.h>

const struct drover_plugin *drover_plugin_entry(const struct drover_host *host) { return NULL; }
