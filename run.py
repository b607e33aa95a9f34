"""Runs one experiment: trains, evaluates and writes the report. The same as `imgclf train`, from a checkout.

Examples:
  python run.py                                                   the built-in digits, in a minute
  python run.py --config=configs/folder.py:PHOTOS                 your folder: PHOTOS/CLASS/*.jpg
  python run.py --config=configs/csv.py:labels.csv                your CSV: columns path, label
  python run.py --config=configs/cifar10_resnet.py --workdir=runs/resnet --config.optimizer.learning_rate=0.05
  python run.py --config=runs/resnet/config.json --workdir=runs/again
Given once more, a command continues an interrupted run. Every field stands in imgclf/config/fields.py.
"""

import imgclf.runtime.platform_flags

if __name__ == "__main__":
    imgclf.runtime.platform_flags.restart_with_huge_pages()

    import imgclf.cli.run_py

    imgclf.cli.run_py.main()
