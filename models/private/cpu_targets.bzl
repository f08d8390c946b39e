"""CPUs to compile for, as TVM's LLVM targets."""

# Names of Arm's architectures, as GCC's -march has them → LLVM's attributes of the CPU.
_ARM = {
    "armv8-a": ["+v8a", "+neon"],
    "armv8.2-a+dotprod": ["+v8.2a", "+neon", "+dotprod"],
}

# What a target means that names no CPU: the oldest of each platform.
_OLDEST = struct(arm64 = "armv8-a", x86_64 = "x86-64-v2")

def llvm(mcpu):
    """Returns TVM's target for a CPU: a dict.

    Args:
        mcpu: LLVM's name of a CPU of x86-64, or one of Arm's architectures, armv8-a or armv8.2-a+dotprod.
    """
    if mcpu in _ARM:
        return {"kind": "llvm", "mtriple": "aarch64-unknown-linux-gnu", "mcpu": "generic", "mattr": _ARM[mcpu]}
    if mcpu.startswith("arm"):
        fail("cpu_target: expected one of Arm's architectures {}, found {}".format(", ".join(_ARM), repr(mcpu)))
    return {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": mcpu}

def constraints(target):
    """The platform that a target is for, for target_compatible_with; none if it names no CPU.

    Args:
        target: what cpu_target() or cuda_target() of //models:defs.bzl returned.
    """
    decoded = json.decode(target)
    triple = decoded.get("host", decoded).get("mtriple", "")
    return ["@platforms//cpu:" + triple.partition("-")[0]] if triple else []

def for_platform(target, is_arm64):
    """Returns a target with the platform's oldest CPU where it names none.

    Args:
        target: what cpu_target() or cuda_target() of //models:defs.bzl returned.
        is_arm64: whether the platform is arm64.
    """
    if constraints(target):
        return target
    oldest = llvm(_OLDEST.arm64 if is_arm64 else _OLDEST.x86_64)
    return json.encode(oldest | {"host": oldest})
