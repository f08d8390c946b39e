"""Module extension `models`: models of locks/models.lock.json as repositories of their files.

Example (a MODULE.bazel file):

    models = use_extension("//fetch/models:extension.bzl", "models")
    models.model(name = "smollm2_gguf")
    use_repo(models, "model_smollm2_gguf", "models_facts")

`@model_smollm2_gguf//:files` has all files of the model, and each one is a target under its own name. Nothing is downloaded before a target that
is built needs one of them.
"""

load("//fetch:lock.bzl", "must_read_lock")
load("//fetch/facts:facts.bzl", "locked", "repository_facts")
load(":model.bzl", "model")

_LOCK = Label("//locks:models.lock.json")

def _models_impl(mctx):
    lock = must_read_lock(mctx, _LOCK)["models"]
    facts = {}
    for module in mctx.modules:
        for tag in module.tags.model:
            if tag.name not in lock:
                fail("locks/models.lock.json has no model '{}', only {}; add it to locks/models.packages.json and run tools/bazel run //locks:update_models".format(
                    tag.name,
                    ", ".join(lock.keys()) or "(none)",
                ))

            # Only a change of this entry makes the repository outdated.
            model(name = "model_" + tag.name, locked = json.encode(lock[tag.name]), model = tag.name)
            facts["model_" + tag.name] = locked([("model", tag.name)], needs = tag.needs)
    repository_facts(name = "models_facts", facts = facts)
    return mctx.extension_metadata(reproducible = True)

models = module_extension(
    implementation = _models_impl,
    tag_classes = {
        "model": tag_class(
            doc = "A model as the repository model_<name>: the target `files`, and each file by its name.",
            attrs = {
                "name": attr.string(mandatory = True, doc = "A model of locks/models.lock.json."),
                "needs": attr.string_list(doc = "What a build must have to take it, as `locked` of //fetch/facts:facts.bzl has it."),
            },
        ),
    },
)
