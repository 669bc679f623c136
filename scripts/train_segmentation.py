from sk_transformers.cli.train_segmentation import main

if __name__ == "__main__":
    main()
