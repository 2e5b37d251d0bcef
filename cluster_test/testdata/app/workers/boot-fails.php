<?php
// A worker script that never asks for a job.
throw new LogicException("the configuration is missing");
