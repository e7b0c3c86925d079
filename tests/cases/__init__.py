"""Tables of reference cases: name of the table to the module whose `CASES` (or `record(device)`) makes its reference file."""

TABLES = {
    "adapters": "tests.cases.adapters",
    "autoencoders": "tests.cases.autoencoders",
    "bundled": "tests.pipelines.bundled_pictures",
    "controlnets": "tests.cases.controlnets",
    "dpt": "tests.cases.dpt",
    "schedulers": "tests.schedulers.recording",
    "schedulers_discrete": "tests.schedulers.recording_discrete",
    "schedulers_half": "tests.schedulers.half",
    "text_encoders": "tests.cases.text_encoders",
    "transformers": "tests.cases.transformers",
    "unet": "tests.cases.unet",
    "unet_2d": "tests.cases.unet_2d",
}
