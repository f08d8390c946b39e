"""The layers that mlc_llm and mlc_llm_dev have in common, and their environment."""

# Importing mlc_llm creates its cache folder: any user can write here, even if the root is read-only.
MLC_LLM_ENVIRONMENT = {"MLC_LLM_HOME": "/tmp/mlc_llm"}

MLC_LLM_LAYERS = [
    "//images/mlc_llm:" + name
    for name in [
        "dependencies",
        "test_dependencies",
        "native",
        "python",
        "application",
    ]
]
