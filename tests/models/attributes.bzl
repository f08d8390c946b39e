"""Attributes of targets as the loading phase sees them."""

def attributes_of(names):
    """Returns JSON: for each of these targets of this package, its attributes that all rules have."""
    return json.encode({
        name: {
            "tags": sorted(native.existing_rule(name)["tags"]),
            "testonly": native.existing_rule(name)["testonly"],
            "visibility": [str(label) for label in native.existing_rule(name)["visibility"]],
        }
        for name in names
    })
