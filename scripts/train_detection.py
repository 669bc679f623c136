from sk_transformers.cli.train_detection import main

if __name__ == "__main__":
    main()
