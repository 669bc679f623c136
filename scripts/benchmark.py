"""Measure the zoo's networks; `python scripts/benchmark.py --help` names the commands.

python scripts/benchmark.py count --models "*s18"                      # parameters and multiply-adds
python scripts/benchmark.py speed --output speed.json                  # beside timm, transformers and plain static keys
python scripts/benchmark.py speed --models skvit --dtypes bfloat16 --modes eager compiled
python scripts/benchmark.py device --device cuda --output cuda.json    # right, by which kernel, and how fast, on a GPU
python scripts/benchmark.py profile --models cskaformer                # what they spend their time on
python scripts/benchmark.py scaling --output scaling.json --plot scaling.png   # against image size, batch and depth
python scripts/benchmark.py resolution --models cskaformer-s18         # resized keys beside windows of them
python scripts/benchmark.py startup                                    # the import, and loading from a file
python scripts/benchmark.py training --images digits --model skvit-nano-patch4-32 --image_size 32   # training loops
taskset -c 1 python scripts/benchmark.py loading                       # images a second of the loader alone
"""

from sk_transformers.cli.errors import exit_on_user_error

if __name__ == "__main__":
    with exit_on_user_error():
        from sk_transformers.benchmarks.commands import main

        main()
