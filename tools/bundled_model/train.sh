#!/bin/sh
# What made mindone_diffusers/bundled/shapes, on two cores that did nothing else, in about two and a half hours. From the repository's root:
#     sh tools/bundled_model/train.sh [WORK]
# It was found as it went: the autoencoder was trained a second time because small shapes were blurred, the pictures of the UNet's first
# 2,000 steps left size and place open where their captions do, and the last 3,400 steps, from the weights that were bundled in float16
# until then, made the shapes right. (Those ran on one core, whose rounding is another; the commands are these.)
set -eu
work=${1:-outputs/shapes}
export PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}
common="--resolution 64 --adam_beta2 0.99 --adam_weight_decay 0 --lr_scheduler cosine"

python tools/bundled_model/shapes.py "$work/free" --count 20000 --seed 0 --free
python tools/bundled_model/shapes.py "$work/data" --count 20000 --seed 1
python tools/bundled_model/initial_model.py "$work/initial" --seed 0

python examples/autoencoder/train_autoencoderkl.py --model "$work/initial" --train_data_dir "$work/free" --output_dir "$work/autoencoder" \
    --train_batch_size 16 --learning_rate 2e-3 --lr_warmup_steps 30 --max_train_steps 1500 --seed 0 $common
python examples/autoencoder/train_autoencoderkl.py --model "$work/autoencoder" --train_data_dir "$work/free" --output_dir "$work/autoencoder-2" \
    --train_batch_size 16 --learning_rate 1.5e-3 --lr_warmup_steps 30 --max_train_steps 1100 --seed 1 $common

cp -r "$work/initial" "$work/start" && rm -r "$work/start/vae" && cp -r "$work/autoencoder-2/vae" "$work/start/vae"
text_to_image() {
    python examples/text_to_image/train_text_to_image.py --pretrained_model_name_or_path "$work/start" --output_dir "$work/model" \
        --cache_latents --train_text_encoder --proportion_empty_prompts 0.1 --use_ema --ema_decay 0.998 --train_batch_size 32 \
        --learning_rate 1e-3 --lr_warmup_steps 100 --checkpointing_steps 1000 --checkpoints_total_limit 3 --seed 0 $common "$@"
}
text_to_image --train_data_dir "$work/free" --max_train_steps 7000 & # stopped after 2,000 steps
until [ -d "$work/model/checkpoint-2000" ]; do sleep 1; done
pkill -f train_text_to_image.py
text_to_image --train_data_dir "$work/data" --resume_from_checkpoint checkpoint-2000 --max_train_steps 6200
python examples/text_to_image/train_text_to_image.py --pretrained_model_name_or_path "$work/model" --output_dir "$work/model-2" \
    --train_data_dir "$work/data" --cache_latents --train_text_encoder --proportion_empty_prompts 0.1 --use_ema --ema_decay 0.995 \
    --train_batch_size 32 --learning_rate 5e-4 --lr_warmup_steps 30 --max_train_steps 700 --seed 2 $common

python tools/bundled_model/shapes.py "$work/more" --count 24000 --seed 2
python tools/bundled_model/bundle.py "$work/model-2" "$work/initial/vae_tiny" --to "$work/half"
python examples/text_to_image/train_text_to_image.py --pretrained_model_name_or_path "$work/half" --output_dir "$work/model-3" \
    --train_data_dir "$work/more" --cache_latents --train_text_encoder --proportion_empty_prompts 0.1 --use_ema --ema_decay 0.998 \
    --train_batch_size 32 --learning_rate 1e-3 --lr_warmup_steps 100 --max_train_steps 3400 --seed 3 $common

python examples/autoencoder/distill_autoencoder_tiny.py --model "$work/initial" --teacher "$work/autoencoder-2/vae" --train_data_dir "$work/free" \
    --output_dir "$work/tiny" --train_batch_size 16 --learning_rate 2e-3 --lr_warmup_steps 30 --max_train_steps 600 --seed 0 $common

python tools/bundled_model/bundle.py "$work/model-3" "$work/tiny/vae_tiny"
