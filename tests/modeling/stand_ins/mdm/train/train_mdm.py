"""Stand-in for MDM's training module: builds the network of its arguments. The tests train it."""

import argparse

import torch
from model.mdm import MDM

parser = argparse.ArgumentParser()
parser.add_argument("--save_dir", required=True)
parser.add_argument("--text_encoder_type", default="clip", choices=["clip", "bert"])
parser.add_argument("--arch", default="trans_enc")
args = parser.parse_args()
torch.manual_seed(0)
network = MDM(text_encoder_type=args.text_encoder_type)
fresh = MDM(text_encoder_type=args.text_encoder_type)
