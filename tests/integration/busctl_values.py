"""Values as busctl prints them with --json=short, and as it takes them in words."""


def unwrap(value):
    """{"type": "t", "data": 3} -> 3, all the way down."""
    if isinstance(value, dict):
        if set(value) == {"type", "data"}:
            return unwrap(value["data"])
        return {key: unwrap(v) for key, v in value.items()}
    if isinstance(value, list):
        return [unwrap(v) for v in value]
    return value


def busctl_words(value):
    """A Python value as busctl's words of an a{sv} entry."""
    if isinstance(value, bool):
        return ["b", "true" if value else "false"]
    if isinstance(value, int):
        return ["t", str(value)] if value >= 0 else ["x", str(value)]
    if isinstance(value, float):
        return ["d", repr(value)]
    if isinstance(value, bytes):
        return ["ay", str(len(value))] + [str(b) for b in value]
    if isinstance(value, tuple):  # ("i", 5): exactly this type
        return [value[0], *str(value[1]).split(" ")]
    if isinstance(value, list):
        kind = busctl_words(value[0])[0] if value else "s"
        return ["a" + kind, str(len(value))] + [w for v in value for w in busctl_words(v)[1:]]
    return ["s", str(value)]


def dict_words(values):
    words = [str(len(values))]
    for key, value in values.items():
        words += [key] + busctl_words(value)
    return words
