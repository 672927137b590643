"""One module per stage: ``run(config, volumes) -> result``, thin, composed from the layers below."""
