"""Recipes from which an image repacks its wheels, so that it need not hold each file twice."""

load("//wheels:defs.bzl", "WheelInfo")

def _wheel_recipes_impl(ctx):
    installed = ctx.file.installed
    recipes = []
    for target in ctx.attr.wheels:
        wheel = target[WheelInfo]
        recipe = ctx.actions.declare_file("{}/{}.json".format(ctx.label.name, wheel.distribution.replace("-", "_")))
        arguments = ctx.actions.args()
        arguments.add("--unversioned", wheel.unversioned)
        arguments.add("--identity", wheel.identity)
        arguments.add("--installed", installed.path)
        arguments.add("--output", recipe)
        ctx.actions.run(
            executable = ctx.executable._make_wheel_recipe,
            arguments = [arguments],
            inputs = [wheel.unversioned, wheel.identity, installed],
            outputs = [recipe],
            mnemonic = "WheelRecipe",
            progress_message = "Writing the recipe of wheel " + wheel.distribution,
        )
        recipes.append(recipe)
    return [DefaultInfo(files = depset(recipes))]

wheel_recipes = rule(
    implementation = _wheel_recipes_impl,
    doc = "Recipes for the image's `build` command, which repacks wheels from installed files: one JSON file per wheel.",
    attrs = {
        "installed": attr.label(allow_single_file = True, mandatory = True, doc = "The site-packages folder that all wheels are installed in."),
        "wheels": attr.label_list(mandatory = True, providers = [WheelInfo]),
        "_make_wheel_recipe": attr.label(default = "//images/private:make_wheel_recipe", executable = True, cfg = "exec"),
    },
)
