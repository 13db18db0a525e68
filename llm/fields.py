"""Every field that a config may set, with its meaning, and the smallest form of all.

A ConfigDict cannot override None or lists, so absence is 0, '' or () here, and ordered
things are tuples.
"""

from ml_collections import ConfigDict

from llm import registry


def base() -> ConfigDict:
    """Every field that a config may set, with a small run's defaults."""
    c = ConfigDict()
    # What to do: a file of llm/workloads/.
    c.workload = "train"
    # The seed of everything: initial weights, data order, dropout, sampling.
    c.seed = 0
    # What prepares corpora: local, processes of this machine; or beam, Apache Beam (the
    # extra `beam`), and its own flags, such as ("--runner=DataflowRunner",).
    c.runner = "local"
    c.runner_options = ()

    # A model to begin with, as generate.model_dir: its network, weights and tokenizer
    # take the place of `model` and `tokenizer`; '' begins with random weights.
    c.init_from = ""
    # Which parameters are trained: a file of llm/adapters/ and its knobs.
    c.adapter = ConfigDict(registry.spec("adapters", "full"))

    # The network: a file of llm/models/ and its knobs.
    c.model = ConfigDict(registry.spec("models", "llama"))
    # What it learns: a file of llm/objectives/ and its knobs.
    c.objective = ConfigDict(registry.spec("objectives", "causal_lm"))

    # First and last step to trace for XProf and Perfetto; () traces none.
    c.profile_steps = ()

    # Rows to print before a training, with what is learned of them in colour; it then
    # stops. 0 trains.
    c.preview = 0

    # Mesh axes and sizes as pairs, -1 fills; and the rules that map logical axes on it.
    c.mesh = (("data", -1),)
    c.rules = "fsdp"

    # A text file, or a folder of them, to score besides the held-out split.
    c.eval_text = ""

    for section in (
        _data, _tokenizer, _optimizer, _schedule, _train, _evaluate, _predict,
        _compare, _filter, _topics, _crawl, _monitor, _harness, _generate, _serve,
        _embed, _interpret, _convert, _compress, _sweep, _plan,
    ):  # fmt: skip
        section(c)
    return c


def _data(c: ConfigDict) -> None:
    """Documents: from where, and what is done to them."""
    c.data = ConfigDict()
    # A run directory whose prepared corpus to use; '' makes one in this workdir.
    c.data.corpus_dir = ""
    # Where documents come from: a file of llm/sources/ and its knobs.
    c.data.source = ConfigDict(registry.spec("sources", "stdlib"))
    # What happens to them, in this order: files of llm/stages/ ...
    c.data.stages = ("normalise", "generated", "exact_dedup", "minhash")
    # ... and their knobs.
    c.data.stage = ConfigDict(
        {name: registry.knobs("stages", name) for name in registry.choices("stages")}
    )
    # Processes that prepare it, 0 is one a core; seconds that a stage may take for one
    # document, 0 is without limit.
    c.data.processes = 0
    c.data.seconds = 60.0
    # A folder where the steps of the preparation stay, with all scores: a run with
    # other thresholds, or a stage more, takes from it what is the same. '' keeps them
    # in this workdir, and only until the corpus is finished.
    c.data.work_dir = ""
    # Shares of the groups (top-level packages) held out; 0.05 is 5 % of the bytes.
    c.data.validation_fraction = 0.05
    c.data.test_fraction = 0.05

    c.data.mixture = ConfigDict()
    # What a training takes of it, see llm/data/mixture.py: a field of documents to mix
    # by (source, language, kind, group, licence, ...); '' takes all as it comes.
    c.data.mixture.by = ""
    # One of: pairs of names and weights; a temperature of sizes, 1 is as they are, more
    # is flatter; UniMax with so many epochs of a name; a schedule of (share of the run,
    # weights).
    c.data.mixture.weights = ()
    c.data.mixture.temperature = 1.0
    c.data.mixture.unimax = 0.0
    c.data.mixture.schedule = ()
    # Epochs of a name at most, 0 is without limit.
    c.data.mixture.most_epochs = 0.0


def _tokenizer(c: ConfigDict) -> None:
    """The tokenizer."""
    c.tokenizer = ConfigDict()
    # Pieces in the vocabulary, byte pieces and special tokens included.
    c.tokenizer.vocab_size = 4096
    # bpe, unigram or char, as SentencePiece trains them: any text comes back; byte, for
    # UTF-8 as it is; word or wordpiece (BERT's), which lose what is not in them. And
    # whether these two take all text in lower case.
    c.tokenizer.kind = "bpe"
    c.tokenizer.lowercase = False
    # Of the first three: whether each digit is a piece of its own, and texts that are
    # always one piece, such as ("<file>", "<end>").
    c.tokenizer.split_digits = False
    c.tokenizer.symbols = ()
    # Template of conversations, for a corpus of them: plain, chatml, llama3, gemma or a
    # Jinja file; '' is the model's own, and plain where it has none.
    c.tokenizer.chat_template = ""
    # Today, for a template that writes it, as 2026-01-31; '' is the day on which the
    # tokens are made, which is recorded and taken from then on.
    c.tokenizer.date = ""
    # Values of names that the template reads, as JSON: '{"enable_thinking": false}'. A
    # record may have its own, `chat_template_kwargs`.
    c.tokenizer.template_variables = ""
    # Whether an empty block of thoughts that a template puts before answers is learned.
    c.tokenizer.learn_empty_think = False
    # Whether control tokens that are spelled out in texts and messages, such as
    # <|im_end|>, are these tokens. Without it what people type is text.
    c.tokenizer.parse_special = False


def _optimizer(c: ConfigDict) -> None:
    """What learns."""
    c.optimizer = ConfigDict()
    # adamw adam sgd rmsprop adafactor lion muon.
    c.optimizer.name = "adamw"
    # Peak learning rate; with muon, of the parameters that AdamW updates.
    c.optimizer.learning_rate = 3e-3
    # Width of the model at which the learning rates were found: at another width each
    # parameter learns as much slower or faster as it must (muP, see
    # llm/training/optim.py). 0 takes them as they are.
    c.optimizer.base_width = 0
    # Peak learning rate of the matrices that Muon updates.
    c.optimizer.muon_learning_rate = 0.02
    # First and second moment decay (adam family, lion); momentum is for sgd, muon.
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.95
    c.optimizer.momentum = 0.95
    c.optimizer.epsilon = 1e-8
    # Decoupled weight decay, on the leaves that match `decay`.
    c.optimizer.weight_decay = 0.1
    c.optimizer.decay = r".*(kernel|embedding)"
    # Leaves to leave as they are; '' freezes nothing.
    c.optimizer.freeze = ""
    # Largest global gradient norm; 0 does not clip.
    c.optimizer.clip_norm = 1.0


def _schedule(c: ConfigDict) -> None:
    """The learning rate over time."""
    c.schedule = ConfigDict()
    # cosine wsd rsqrt linear constant, each after a linear warm-up; or range, which
    # grows from the share `first` of the peak to the peak (configs/lr_range.py).
    c.schedule.name = "cosine"
    # Warm-up, and the final decay of wsd, as shares of the run.
    c.schedule.warmup = 0.05
    c.schedule.decay = 0.2
    # Final learning rate as a share of the peak.
    c.schedule.final = 0.1
    c.schedule.first = 1e-4


def _train(c: ConfigDict) -> None:
    """The run."""
    c.train = ConfigDict()
    # Length of the run: exactly one of these three is not 0. Epochs may be 1.5.
    c.train.steps = 0
    c.train.tokens = 0
    c.train.epochs = 0.0
    # Sequences in a global batch, and tokens in a sequence.
    c.train.batch_size = 32
    c.train.seq_len = 256
    # Micro-batches that make up one update.
    c.train.accumulate = 1
    # Compute dtype of matrix products: float32 or bfloat16. Parameters are float32.
    c.train.dtype = "bfloat16"
    # How activations and kernels are multiplied: dtype (the one above), int8 or fp8
    # (eight bits, scaled as they come; logits and attention keep the dtype).
    c.train.products = "dtype"
    # What carries attention out: auto (splash on TPUs, else xla), xla, splash, or cudnn
    # (NVIDIA). One that is named and cannot run ends the run; auto says what it took.
    c.train.attention = "auto"
    # Decay of the exponential moving average of parameters; 0 keeps none.
    c.train.ema = 0.0
    # Steps between log lines, between validations and between checkpoints; 0 is never
    # (a run always validates and saves at its end).
    c.train.log_every = 10
    c.train.validate_every = 0
    c.train.checkpoint_every = 0
    # Steps between checkpoints of each machine on its own disk, for runs on many hosts:
    # a crash that leaves the machines loses no more; 0 keeps none. And where they lie.
    c.train.local_every = 0
    c.train.local_dir = ""
    # Sequences in a validation; 0 takes the whole split.
    c.train.validation_sequences = 256
    # Checkpoints kept: the newest ones, and the best ones by validation loss.
    c.train.keep_last = 2
    c.train.keep_best = 1
    # Validations without a better loss after which to stop; 0 never stops early.
    c.train.patience = 0
    # Gap between validation and training loss, in nats a token, that raises a warning.
    c.train.overfit_gap = 0.5
    # What to do with a step whose loss or gradient is far off or not finite: off (end
    # if it is not finite), skip (do not learn from it), or rollback (go back to the
    # newest checkpoint, too, and then skip it).
    c.train.spike = "off"
    # Say where numbers stop being finite, if they do: each step is then waited for.
    c.train.find_nan = False
    # Metadata server that announces maintenance and preemption, upon which the run is
    # saved and ends with exit code 75: an address, auto (Google's, on TPUs), or none.
    c.train.notices = "auto"
    # End with exit code 76 if a step takes so many times the median; 0 waits for ever.
    c.train.watchdog = 50.0
    # And where there is no median, in the first steps, a validation or a checkpoint,
    # after so many seconds without a sign of life; 0 waits for ever.
    c.train.watchdog_longest = 7200.0
    # Also log to Weights & Biases (needs the wandb package).
    c.train.wandb = False


def _evaluate(c: ConfigDict) -> None:
    """Evaluations."""
    c.evaluate = ConfigDict()
    # As generate.model_dir.
    c.evaluate.model_dir = ""
    # Files of llm/evals/ to run, in this order.
    c.evaluate.tasks = ("perplexity", "syntax")
    # Whether to score the split by the objective that the model was trained with, as a
    # validation does: for models that are not asked for the likelihood of a text.
    c.evaluate.objective = False
    # Whether to score the model that the run began with, too, by the same tasks and
    # the same objective.
    c.evaluate.before = False
    # Split of the corpus that is scored.
    c.evaluate.split = "test"
    # Share of a window that is context kept from the window before, so that few tokens
    # are scored with little context; and windows scored, or texts generated, at once.
    c.evaluate.overlap = 0.5
    c.evaluate.batch_size = 32
    # Longest row of tokens that is scored; 0 is as many as the model was trained with.
    c.evaluate.max_tokens = 0
    # Knobs of the tasks. One may be there by another name: `name` then says its file.
    c.evaluate.task = ConfigDict(
        {name: registry.knobs("evals", name) for name in registry.choices("evals")}
    )


def _predict(c: ConfigDict) -> None:
    """Classes of texts."""
    c.predict = ConfigDict()
    # As generate.model_dir; a classifier of texts.
    c.predict.model_dir = ""
    # The texts: a file with one a line, or the texts themselves; and texts at once.
    c.predict.path = ""
    c.predict.texts = ()
    c.predict.batch_size = 32


def _compare(c: ConfigDict) -> None:
    """Two evaluations beside each other."""
    c.compare = ConfigDict()
    # The workdirs of two evaluations.
    c.compare.runs = ()


def _filter(c: ConfigDict) -> None:
    """A classifier of documents."""
    c.filter = ConfigDict()
    # What a classifier of documents learns from: pairs of a label and of what holds
    # texts of it, as `text=` of the quickstart: (("good", "jsonl:good.jsonl"), ...).
    # () takes data.source, whose documents have a label in this field: kind, group, or
    # one of meta.
    c.filter.sources = ()
    c.filter.field = "kind"
    # Documents of a label that are taken, by chance and each text once; the characters
    # of each that are read; and the share of them that figures are measured on.
    c.filter.documents = 50_000
    c.filter.characters = 10_000
    c.filter.test_fraction = 0.1
    # Features are hashed to 2**bits columns; l2 is the weight of the penalty.
    c.filter.bits = 20
    c.filter.l2 = 1e-6
    # How many words are told that weigh most.
    c.filter.words = 30


def _topics(c: ConfigDict) -> None:
    """Topics of documents."""
    c.topics = ConfigDict()
    # Topics that are looked for in documents of data.source, by embed's model.
    c.topics.count = 8
    # Documents that are taken, as those of filter; words that are told of each topic.
    c.topics.documents = 20_000
    c.topics.characters = 10_000
    c.topics.test_fraction = 0.1
    c.topics.bits = 18
    c.topics.words = 20


def _crawl(c: ConfigDict) -> None:
    """The crawler."""
    c.crawl = ConfigDict()
    # Where a crawl begins: URLs. Only their hosts are visited, and these more.
    c.crawl.start = ()
    c.crawl.hosts = ()
    # A page or address at which you are reached; it is told to every site.
    c.crawl.contact = ""
    # Seconds between two requests to a host, at least; more where robots.txt asks
    # for it, up to 60.
    c.crawl.delay = 1.0
    # Most pages, of all hosts and of each; most links from a start.
    c.crawl.pages = 100_000
    c.crawl.pages_per_host = 1000
    c.crawl.depth = 8
    # A page that takes longer, in seconds, or is larger is left out.
    c.crawl.seconds = 30.0
    c.crawl.max_page_bytes = 8 * 2**20
    # Hosts that may have private addresses, such as an intranet's.
    c.crawl.private_hosts = ()


def _monitor(c: ConfigDict) -> None:
    """Drift of the traffic."""
    c.monitor = ConfigDict()
    # The request log of a server; one to compare with, '' is the same log before; and
    # how many hours at the end of the log are compared, 0 is all of it.
    c.monitor.log = ""
    c.monitor.reference = ""
    c.monitor.hours = 0.0


def _harness(c: ConfigDict) -> None:
    """lm-evaluation-harness."""
    c.harness = ConfigDict()
    # As generate.model_dir.
    c.harness.model_dir = ""
    # A folder with tasks of lm-evaluation-harness as YAML files, and which to run.
    c.harness.folder = ""
    c.harness.tasks = ()
    # Solved examples before a question; items of a task, 0 is all; and rows at once.
    c.harness.shots = 0
    c.harness.limit = 0
    c.harness.batch_size = 32


def _generate(c: ConfigDict) -> None:
    """Continuations."""
    c.generate = ConfigDict()
    # A trained run directory, or a Hugging Face folder or GGUF file, which is imported
    # into this workdir first; '' is this workdir.
    c.generate.model_dir = ""
    # Texts to continue, or, for an encoder-decoder, to answer.
    c.generate.prompts = ("def ",)
    # Whether prompts are what a user says, put in the model's own chat template.
    c.generate.chat = False
    # Most new tokens, and samples of each prompt.
    c.generate.max_tokens = 200
    c.generate.samples = 1
    # Beams of a search for the most likely texts, instead of samples; 1 samples. A
    # text's score is its log-probability over length**length_penalty.
    c.generate.beams = 1
    c.generate.length_penalty = 1.0
    # 0 is greedy; top_k 0, top_p 1, min_p 0 and repetition_penalty 1 change nothing.
    c.generate.temperature = 0.8
    c.generate.top_k = 0
    c.generate.top_p = 1.0
    c.generate.min_p = 0.0
    c.generate.repetition_penalty = 1.0
    # Texts that end a sample.
    c.generate.stop = ()


def _serve(c: ConfigDict) -> None:
    """The server."""
    c.serve = ConfigDict()
    # As generate.model_dir, and what the model is called; '' is the name of its folder.
    c.serve.model_dir = ""
    c.serve.name = ""
    # Where to listen; port 0 is any that is free. Other hosts want api_keys_file.
    c.serve.host = "127.0.0.1"
    c.serve.port = 8000
    # A file with a key a line, one of which a request must bear; '' asks for none.
    c.serve.api_keys_file = ""
    # Requests that are answered at once, and most tokens of a prompt and its answer; 0
    # is as many as the model was made for.
    c.serve.slots = 16
    c.serve.context = 2048
    # Requests that may wait, of all clients and of one, and the longest body in bytes.
    c.serve.most_waiting = 256
    c.serve.most_waiting_client = 128
    c.serve.most_bytes = 4_000_000
    # Seconds after which a request is given up, and that are left to answer what was
    # asked when the server is told to end.
    c.serve.request_seconds = 600
    c.serve.shutdown_seconds = 30
    # Whether to log a line an answer, and whether with its texts, scrubbed.
    c.serve.log_requests = True
    c.serve.log_prompts = False
    # What the names of metrics begin with; vllm shows this server on boards for that.
    c.serve.metrics_prefix = "llm"
    # Whether people may rate answers, which are then written to the workdir.
    c.serve.feedback = False
    # Checks of prompts and answers: pairs of a file of llm/guards/ and what to do:
    # block, redact or log ...
    c.serve.guard = ()
    # ... and their knobs.
    c.serve.check = ConfigDict(
        {name: registry.knobs("guards", name) for name in registry.choices("guards")}
    )


def _embed(c: ConfigDict) -> None:
    """Texts as vectors."""
    c.embed = ConfigDict()
    # As generate.model_dir.
    c.embed.model_dir = ""
    # The texts: a file with one a line, or the texts themselves.
    c.embed.path = ""
    c.embed.texts = ()
    # How tokens make a vector: mean, first or last; and whether its length is made 1.
    c.embed.pooling = "mean"
    c.embed.normalise = True
    # Tokens of a text that are read; 0 is as many as the model was trained with.
    c.embed.max_tokens = 0
    # Texts at once, and how many pairs of texts that are alike are printed.
    c.embed.batch_size = 32
    c.embed.pairs = 5


def _interpret(c: ConfigDict) -> None:
    """A look inside."""
    c.interpret = ConfigDict()
    # As generate.model_dir.
    c.interpret.model_dir = ""
    # The text to look at, of which at most so many tokens.
    c.interpret.prompt = "def main():"
    c.interpret.max_tokens = 48
    # Words of one token each, and triples of them: the third is to what as the second
    # is to the first.
    c.interpret.words = ()
    c.interpret.analogies = ()
    # How many tokens are listed each time.
    c.interpret.top = 5


def _convert(c: ConfigDict) -> None:
    """Formats of others."""
    c.convert = ConfigDict()
    # A Hugging Face folder or a GGUF file to import, or a run directory to export.
    c.convert.source = ""
    # hf, gguf or peft; '' imports.
    c.convert.to = ""
    # The model that an adapter of PEFT's, as the source, is added to.
    c.convert.base = ""
    # How numbers are stored; '' is float32 for hf and f16 for gguf.
    c.convert.dtype = ""


def _compress(c: ConfigDict) -> None:
    """Smaller models."""
    c.compress = ConfigDict()
    # As generate.model_dir.
    c.compress.model_dir = ""
    # How: a file of llm/compress/ and its knobs.
    c.compress.method = ConfigDict(registry.spec("compress", "int8"))
    # A text file or folder that perplexity is measured on; '' is our own source.
    c.compress.text = ""
    # A text file or folder: int4 weighs the errors of a kernel by how large its inputs
    # are there (some of the training text is best). '' weighs all alike.
    c.compress.calibration = ""


def _sweep(c: ConfigDict) -> None:
    """A search of fields."""
    c.sweep = ConfigDict()
    # Fields of `trial`, the config of a trial, that trials differ in: axes such as
    # ("optimizer.learning_rate", "log", 1e-3, 1e-1), see llm/sweeps/search.py.
    c.sweep.space = ()
    # grid, random, or bayes (needs optuna); how many trials random and bayes take, and
    # how many points of a range a grid has.
    c.sweep.search = "random"
    c.sweep.trials = 16
    c.sweep.points = 5
    # Trials at once, which share the GPUs, TPU chips or cores of this machine.
    c.sweep.processes = 1
    # What is compared, a figure of train.json or evaluate.json, and whether the best is
    # the least (min) or the most (max).
    c.sweep.metric = "validation_loss"
    c.sweep.goal = "min"
    # Successive halving: of the trials at a rung, one in so many goes on; 0 trains all
    # to their end. And the step of the first rung, 0 for the first validation; each
    # next one is so many times that.
    c.sweep.halving = 0
    c.sweep.first_rung = 0


def _plan(c: ConfigDict) -> None:
    """What a run needs."""
    c.plan = ConfigDict()
    # Chip to plan for (a name of llm/planning/flops.py), how many, and dollars per
    # chip-hour; 0 is the chip's list price (llm/planning/flops.py).
    c.plan.accelerator = "v5e"
    c.plan.chips = 8
    c.plan.price = 0.0
    # Share of peak FLOP/s to expect.
    c.plan.mfu = 0.4
    # A pod to compile the step for, such as v5e:16x16 or 2xv5e:16x16, instead of
    # accelerator and chips; and sequences of a device at once, 0 is train.batch_size.
    c.plan.topology = ""
    c.plan.rows = 0
    # Whether to look for the best rows, model.remat and mesh: every one of these names,
    # and every one of these meshes.
    c.plan.search = False
    c.plan.search_remat = ("selective", "minimal", "full")
    c.plan.search_mesh = ((("fsdp", -1),), (("fsdp", -1), ("tensor", 2)))


def debug(c: ConfigDict) -> ConfigDict:
    """The smallest form of a config: same structure, three steps, tiny shapes, CPU."""
    for knob, value in registry.module("models", c.model.name).TINY.items():
        c.model[knob] = value
    c.data.source.max_documents = 60
    c.tokenizer.vocab_size = 512
    c.train.update(steps=3, tokens=0, epochs=0.0, batch_size=8, seq_len=64)
    c.train.update(log_every=1, validate_every=0, validation_sequences=8)
    c.train.update(checkpoint_every=2, accumulate=min(c.train.accumulate, 2))
    c.evaluate.batch_size = 8
    for label, knobs in c.evaluate.task.items():
        knobs.update(registry.module("evals", knobs.get("name", label)).TINY)
    c.filter.update(documents=60, bits=12)
    c.topics.update(count=2, documents=60, bits=12)
    c.generate.update(max_tokens=16)
    c.serve.update(slots=2, context=128, port=0)
    c.mesh = (("data", -1),)
    return c
