"""``tokenizer.json`` of a folder, set so that a text is taken as it is."""

from .fields import CheckpointError


def read_tokenizer(folder, vocab_size):
    """The tokenizer of a folder, or None if it has none.

    Parameters
    ----------
    folder : Path
    vocab_size : int
        V of the model.

    Returns
    -------
    tokenizers.Tokenizer or None
        Set so that the text of a special token inside a user's text stays text.

    Raises
    ------
    CheckpointError
        When the file cannot be read, or names an id that the model has no embedding for.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    from tokenizers import Tokenizer  # here, so that minisink can be imported without it

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{path}: not a tokenizer ({error})") from error
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()  # some files carry the settings of a training run
    tokenizer.no_padding()
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocab_size:
        raise CheckpointError(f"{path}: has token id {largest}, but the model's vocab_size is {vocab_size}")
    return tokenizer
