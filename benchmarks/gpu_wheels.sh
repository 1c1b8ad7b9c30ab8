#!/bin/bash
# Collects in luggage/ what a GPU machine without a network lacks; benchmarks/gpu.py finds it there.
#
#     benchmarks/gpu_wheels.sh [MIB]    # most that one part may take (48)
#
# The machine is thought to have Python 3.12 on x86-64 Linux, torch, transformers, sentence-transformers, peft, accelerate
# and timm. luggage/1 gets wheels; luggage/2 and so on get parts of the packages that offline:e5-small and offline:gemma
# are made from, which take 72 and 253 MB, converted checkpoints 488 and 569: they are converted there, in seconds. Where
# a call can carry little, carry one folder a call (what an earlier call brought stays), and run gpu.py with the last.
# Not among them, being too large: lancedb (72 MiB; gpu.py asks no index that needs it), faiss-gpu (129 MiB, and CUDA 12's
# own libraries). Needs crosslens with its extra `offline`; run it again to collect all of it again.
set -euo pipefail
cd "$(dirname "$0")/.."
size=${1:-48}
rm -rf luggage
mkdir -p luggage/1

platforms=()
for name in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014; do
    platforms+=(--platform "${name}_x86_64")
done
# What crosslens and open_clip need at their imports, what converts Gemma, and what sentence-transformers trains with.
python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" -d luggage/1 \
    platformdirs 'open_clip_torch>=3.0' ftfy wcwidth 'langcodes>=3.5' language-data marisa-trie 'py3langid>=0.4' \
    'ir_measures>=0.4.3' pytrec-eval-terrier 'gguf>=0.17' 'datasets>=4' dill 'multiprocess<0.70.20'

folder=1
for model in e5-small gemma; do
    list=$(python - "$model" <<'END'
import sys
from crosslens.checkpoints.offline.packages import find_model

for file in find_model(sys.argv[1]).files:
    path = file.locate()
    if path is None:
        sys.exit(f"{file.module} is not installed: {find_model(sys.argv[1]).remedy}")
    print(path.parents[len(file.path.split("/"))], f"{file.module}/{file.path}", sep="\t")
END
    )
    # shellcheck disable=SC2046 # no path of a module holds a space
    tar -c -f - -C "$(head -1 <<<"$list" | cut -f1)" $(cut -f2 <<<"$list") | split -b "${size}M" -d -a 3 - "luggage/$model.tar."
    parts=("luggage/$model.tar."*)
    echo "${#parts[@]}" > "luggage/1/$model.parts"
    for part in "${parts[@]}"; do
        folder=$((folder + 1))
        mkdir -p "luggage/$folder"
        mv "$part" "luggage/$folder/"
    done
done
du -sm luggage/*
