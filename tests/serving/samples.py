"""Good requests of every method, to bend and to grow others from."""

from __future__ import annotations

from rosacea.v1 import faces_pb2 as pb

LABEL = pb.Label(class_index=1)
MIXES = [pb.StyleMix(seed=3, end_row=1), pb.StyleMix(seed=2**31, first_row=1, end_row=3)]
SPEC = pb.FaceSpec(
    model="models/demo", seeds=pb.Seeds(values=[1, 2**31]), truncation_psi=0.7, truncation_cutoff=2,
    label=LABEL, style_mixes=MIXES, noise_mode=pb.NOISE_MODE_RANDOM, noise_seed=7,
    format=pb.IMAGE_FORMAT_JPEG, jpeg_quality=90,
)  # fmt: skip
BY_RANGE = pb.FaceSpec(model="models/demo@latest", seed_range=pb.SeedRange(start=5, count=20), label=LABEL)
MAPPED = pb.LatentSpec(
    model="models/demo", z=pb.Latents(data=bytes(64)), space=pb.LATENT_SPACE_WS, truncation_psi=-0.5,
    truncation_cutoff=1, label=pb.Label(vector=pb.LabelVector(values=[0.5, 0, 0.5])), style_mixes=MIXES,
)  # fmt: skip

SAMPLES = {
    "GenerateFaces": pb.GenerateFacesRequest(spec=SPEC).SerializeToString(),
    "StreamFaces": pb.StreamFacesRequest(spec=BY_RANGE, start_index=1).SerializeToString(),
    "MapLatents": pb.MapLatentsRequest(spec=MAPPED).SerializeToString(),
    "GetModel": pb.GetModelRequest(name="models/demo").SerializeToString(),
    "ListModels": pb.ListModelsRequest(page_size=5, page_token="models/a").SerializeToString(),
}
