from sk_transformers.cli.train import main

if __name__ == "__main__":
    main()
