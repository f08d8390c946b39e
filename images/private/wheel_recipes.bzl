"""Recipes by which an image packs its wheels again, instead of holding each file twice."""

def _wheel_recipes_impl(ctx):
    installed = ctx.file.installed
    recipes = []
    for wheel in [file for file in ctx.files.wheels if file.extension == "whl"]:
        recipe = ctx.actions.declare_file("{}/{}.json".format(ctx.label.name, wheel.basename))
        arguments = ctx.actions.args()
        arguments.add("--wheel", wheel)
        arguments.add("--installed", installed.path)
        arguments.add("--output", recipe)
        ctx.actions.run(
            executable = ctx.executable._make_wheel_recipe,
            arguments = [arguments],
            inputs = [wheel, installed],
            outputs = [recipe],
            mnemonic = "WheelRecipe",
            progress_message = "Writing how to pack %s again" % wheel.basename,
        )
        recipes.append(recipe)
    return [DefaultInfo(files = depset(recipes))]

wheel_recipes = rule(
    implementation = _wheel_recipes_impl,
    doc = "What the image's `build` command needs beside the installed files: one JSON file per wheel.",
    attrs = {
        "installed": attr.label(allow_single_file = True, mandatory = True, doc = "The site-packages folder that all wheels are installed in."),
        "wheels": attr.label_list(allow_files = [".whl"], mandatory = True),
        "_make_wheel_recipe": attr.label(default = "//images/private:make_wheel_recipe", executable = True, cfg = "exec"),
    },
)
