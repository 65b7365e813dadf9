"""What pyproject.toml cannot say: the compiled kernels, and conf/ travelling in the wheel as mahler/conf."""

from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

# Every kernel is found by its file. Plain -O3: -march=native makes results differ between machines, and so does to
# multiply and add in one step, where a processor can; -ffast-math breaks NaN, which is how a missing quote is written.
kernels = [
    Extension(path.removesuffix(".pyx").replace("/", "."), [path], extra_compile_args=["-O3", "-ffp-contract=off"])
    for path in sorted(glob("mahler/core/*.pyx"))
]

setup(
    ext_modules=cythonize(kernels, language_level=3),
    packages=[*find_packages(include=["mahler", "mahler.*"]), "mahler.conf", "hydra_plugins"],
    package_dir={"mahler.conf": "conf"},
    package_data={"mahler": ["*.json"], "mahler.conf": ["**/*.yaml"]},
    options={"build_ext": {"parallel": True}},   # a compiler per core
)
