"""Trained models as pipelines of diffusers; `genzoo.pipelines` has the names. Nothing is imported here."""
