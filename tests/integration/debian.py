"""A Debian 12 tree and kernels of Debian's, made once by debootstrap and cached: what the container and the virtual
machine run."""

import glob
import os
import shutil
import subprocess
import tempfile

from harness import PATIENCE

PACKAGES = "systemd,systemd-sysv,dbus,liburing2,libseccomp2,libinih1,libmsgpackc2,libjson-c5,libcmocka0,python3"
CACHE = os.path.join(os.environ.get("DROVER_TEST_CACHE") or "/var/cache", "drover-test")
IMAGE = os.path.join(CACHE, "bookworm-2")  # a new number when PACKAGES change


class Missing(Exception):
    """Why there is none, in words."""


def run(*words, timeout=600, **options):
    return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout * PATIENCE, check=False, **options)


def remove(part):
    """Not /proc and the like, which a debootstrap that was stopped leaves mounted in there."""
    with open("/proc/self/mounts", encoding="utf-8") as f:
        mounted = [line.split()[1] for line in f]
    for path in reversed([path for path in mounted if path.startswith(part + "/")]):
        run("umount", "--lazy", path)
    shutil.rmtree(part, ignore_errors=True)


def debootstrap(path, make):
    """The path, made by make(PART) if it is not there: whole or not at all."""
    if os.path.exists(path):
        return path
    if os.geteuid() != 0:
        raise Missing("debootstrap needs root")
    if not shutil.which("debootstrap"):
        raise Missing("debootstrap is not installed")
    os.makedirs(CACHE, exist_ok=True)
    part = tempfile.mkdtemp(prefix="part-", dir=CACHE)
    try:
        os.chmod(part, 0o755)
        os.rename(make(part), path)
    except subprocess.TimeoutExpired as late:
        raise Missing(f"debootstrap did not end in {late.timeout:.0f} s (a slow network?)") from None
    finally:
        remove(part)
    return path


def image():
    def make(part):
        r = run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", part)
        if r.returncode != 0:
            raise Missing("debootstrap failed (no network?): " + r.stdout[-300:])
        return part
    return debootstrap(IMAGE, make)


def kernel(suite):
    """The folder of the stock kernel of a Debian suite: boot/vmlinuz-*, lib/modules."""
    def make(part):
        r = run("debootstrap", "--download-only", "--variant=minbase", "--include=linux-image-amd64", suite, part)
        packages = glob.glob(f"{part}/var/cache/apt/archives/linux-image-[0-9]*.deb")
        if r.returncode != 0 or len(packages) != 1:
            raise Missing("debootstrap found no kernel (no network?): " + r.stdout[-300:])
        r = run("dpkg-deb", "-x", packages[0], f"{part}/kernel")
        if r.returncode != 0:
            raise Missing("dpkg-deb failed: " + r.stdout[-300:])
        return f"{part}/kernel"
    return debootstrap(os.path.join(CACHE, f"kernel-{suite}"), make)
