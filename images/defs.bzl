"""What the images share: where things are in them, and recipes that make wheels out of what is installed."""

load("//images/private:wheel_recipes.bzl", _wheel_recipes = "wheel_recipes")

# Where Debian's python3 looks for what Debian did not package.
SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages"

# Commands of ours, and of Python distributions.
COMMANDS = "usr/local/bin"

wheel_recipes = _wheel_recipes
