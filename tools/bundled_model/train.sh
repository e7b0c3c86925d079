#!/bin/sh
# The bundled model, from nothing: the commands and seeds that made mindone_diffusers/bundled/shapes, in float32 until the last line.
# About two and a half hours on two cores that do nothing else. From the repository's root: sh tools/bundled_model/train.sh [WORK]
set -eu
work=${1:-outputs/shapes}
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}
common="--seed 0 --adam_beta2 0.99 --adam_weight_decay 0 --lr_scheduler cosine"

python tools/bundled_model/shapes.py "$work/data" --count 20000 --seed 0
python tools/bundled_model/initial_model.py "$work/initial" --seed 0

python examples/autoencoder/train_autoencoderkl.py --model "$work/initial" --train_data_dir "$work/data" --output_dir "$work/autoencoder" \
    --resolution 64 --train_batch_size 16 --learning_rate 2e-3 --lr_warmup_steps 30 --max_train_steps 1600 $common

cp -r "$work/initial" "$work/start" && rm -r "$work/start/vae" && cp -r "$work/autoencoder/vae" "$work/start/vae"
python examples/text_to_image/train_text_to_image.py --pretrained_model_name_or_path "$work/start" --train_data_dir "$work/data" \
    --output_dir "$work/model" --resolution 64 --cache_latents --train_text_encoder --proportion_empty_prompts 0.1 --use_ema --ema_decay 0.998 \
    --train_batch_size 32 --learning_rate 1e-3 --lr_warmup_steps 100 --max_train_steps 7000 --checkpointing_steps 1000 \
    --checkpoints_total_limit 2 $common

python examples/autoencoder/distill_autoencoder_tiny.py --model "$work/initial" --teacher "$work/autoencoder/vae" --train_data_dir "$work/data" \
    --output_dir "$work/tiny" --resolution 64 --train_batch_size 16 --learning_rate 2e-3 --lr_warmup_steps 30 --max_train_steps 1000 $common

python tools/bundled_model/bundle.py "$work/model" "$work/tiny/vae_tiny"
